"""Configs: read from files and the command line, kept in a workdir, compared."""

import atexit
import difflib
import json
import pathlib
import re
import runpy
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from patch_svdd_jax import configs
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, store, working_copy

FILE = 'config.json'

# What changes no figure of a run: prefixes of `differences`.
WITHOUT_EFFECT = (
  'config.checkpoint.keep:',
  'config.data.root:',
  'config.data.prepared:',
  'config.data.cache_gib:',
  'config.calibration.',
)

# Of config.data, the folders.
PLACES = ('root', 'prepared')

# Values of older runs, by key, and what they are called now.
RENAMED_VALUES: dict[str, dict[Any, Any]] = {'config.train.images': {'divided': 'sharded'}}

# Keys of earlier versions that workdirs and detectors have: where and in what blocks the search
# works, which is chosen now and changes nothing that it finds.
RETIRED = (
  'config.score.bank',
  'config.score.bank_block',
  'config.score.query_block',
  'config.score.screen',
)

# What workdirs and detectors mean that were saved before there was the key, where that is not the
# default: of 16 bits a channel the high byte counted.
BEFORE: Mapping[str, Any] = {'config.data.value_range': (0.0, 65535.0)}

# The types of settings in words, for errors.
KINDS = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
  str: 'text',
  tuple: 'a tuple',
}

# The start of a config file in a bucket, whose colon does not begin the argument.
URL_SCHEME = re.compile(r'\w+://')

# What ml_collections says of a key that does not exist, and of a value that does not fit.
NO_KEY = re.compile(r'[\'"]*Key "(\w+)" does not exist|[\'"]*(\w+)[\'"]*\nDid you mean')
WRONG_TYPE = re.compile(
  r"Could not override field '(\w+)' \(reference\)\. (.*) is of original type <class '(\w+)'> "
  r"and cannot be casted to type <class '([\w.]+)'>"
)


def packaged(folder: str = '') -> dict[str, pathlib.Path]:
  """Returns the configs that come with the package, or those of one of their folders, by name."""
  place = pathlib.Path(configs.__path__[0], folder)
  return {file.stem: file for file in sorted(place.glob('[!_]*.py'))}


def find(name: str, folder: str = '') -> pathlib.Path:
  """Finds the config file called `name`: a path, or else one of the package's in `folder`."""
  path = config_place(name) if name else pathlib.Path()
  if path.is_file():
    return path
  known = packaged(folder)
  # configs/mvtec.py is where the documentation has them; a file elsewhere would be another one.
  if path.parent in (pathlib.Path(), pathlib.Path('configs', folder)) and path.stem in known:
    return known[path.stem]
  raise UserError(f'no config file {name!r}: give a path, or one of {", ".join(known)}')


def config_place(name: str) -> pathlib.Path:
  """Returns the path of a config file; of one in a bucket, which is fetched, that of a copy."""
  path = working_copy.place(name)
  if copy := working_copy.of(path):
    copy.fetch()
    # It is read again for each category, and by the other functions of the file.
    atexit.register(copy.__exit__)
  return path


def read(name: str) -> ml_collections.ConfigDict:
  """Returns the config of `FILE[:ARGUMENT]`, by the file's get_config(ARGUMENT).

  Raises:
    UserError: there is no such file, it has no get_config, its code fails, or it sets a key or a
      type that the defaults do not have.
  """
  scheme = URL_SCHEME.match(name)
  start = scheme[0] if scheme else ''
  file, colon, argument = name.removeprefix(start).partition(':')
  path = find(start + file)
  config = call(path, 'get_config', *([argument] if colon else []))
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f'{path}: get_config returns {type(config).__name__}, not a ConfigDict')
  check(config, str(path))
  return config


def call(path: pathlib.Path, function: str, *arguments: Any) -> Any:
  """Returns the result of a function of a config file.

  Raises:
    UserError: there is no such function, or its code fails; names the line.
  """
  try:
    found = runpy.run_path(str(path)).get(function)
    if not callable(found):
      raise UserError(f'{path}: defines no function {function}')
    return found(*arguments)
  except UserError:
    raise
  except Exception as error:  # The file is its user's code: whatever it raises is theirs to read.
    raise UserError(f'{path}{line_number(error, path)}: {error_message(error)}') from error


def line_number(error: Exception, path: pathlib.Path) -> str:
  """Returns ':7', the line of a config file where an error arose; '' where it arose outside."""
  if isinstance(error, SyntaxError):
    return f':{error.lineno}'
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == str(path)
  ]
  return f':{lines[-1]}' if lines else ''


def error_message(error: Exception) -> str:
  """Returns an error of a config file's code in one line; those of ml_collections name the key."""
  text = str(error.args[0]) if error.args else ''
  # ml_collections turns one error's repr into the text of another.
  text = text.replace('\\n', '\n').replace('\\', '')
  if missing := NO_KEY.match(text):
    return no_such_key(missing[1] or missing[2])
  if wrong := WRONG_TYPE.match(text):
    words = {cls.__name__: words for cls, words in KINDS.items()}
    given, wanted = (words.get(name, 'a section') for name in wrong.group(3, 4))
    return f'{wrong[1]}={wrong[2]} is {given}, must be {wanted}'
  return f'{type(error).__name__}: {text.splitlines()[0] if text else "no message"}'


def no_such_key(key: str) -> str:
  """Explains that a key does not exist, given in full or by its last name."""
  known = [name for name, _ in flatten(default.get_config())]
  if '.' not in key:
    known = [part for name in known for part in name.split('.')]
  near = difflib.get_close_matches(key, known, 1)
  return f'no such key: {key}; ' + (f'did you mean {near[0]}?' if near else '--help lists all keys')


def kind(value: Any) -> str:
  """Returns the type of setting a value is, in words."""
  if isinstance(value, tuple):
    return 'a tuple, each ' + ' or '.join(sorted({kind(item) for item in value}))
  return KINDS.get(type(value), type(value).__name__)


def mistakes(values: Mapping[str, Any]) -> list[str]:
  """Says of values by full key which keys do not exist, and which have the wrong type.

  A whole number may stand for any number; where a tuple is empty by default, it may be empty.
  """
  known = dict(flatten(default.get_config()))
  like = known | {f'config.{key}': value for key, value in default.FILLED.items()}
  return [
    f'{key}={value!r}: must be {kind(like[key])}' if key in known else no_such_key(key)
    for key, value in values.items()
    if key not in known or not (value == known[key] == () or fits(value, like[key]))
  ]


def fits(value: Any, like: Any) -> bool:
  """Returns whether a value has the type of another; whole numbers may stand for numbers."""
  if isinstance(value, tuple) and isinstance(like, tuple):
    return bool(value) and all(any(fits(item, each) for each in like) for item in value)
  return kind(value) == kind(like) or (type(value), type(like)) == (int, float)


def check(config: ml_collections.ConfigDict, source: str) -> None:
  """Refuses a config whose keys or types are not those of the defaults.

  Raises:
    UserError: names the source and the keys.
  """
  found = dict(flatten(config))
  missing = [key for key, _ in flatten(default.get_config()) if key not in found]
  wrong = mistakes(found)
  wrong += [f'lacks {key}; start from patch_svdd_jax.configs.default' for key in missing]
  if wrong:
    raise UserError(f'{source}: {"; ".join(wrong)}')


def override(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> ml_collections.ConfigDict:
  """Applies `--config.section.key=value` arguments.

  Raises:
    UserError: a key does not exist or a value has the wrong type, by name.
  """
  known = dict(flatten(config))
  for argument in arguments:
    key = argument.partition('=')[0].removeprefix('--')
    if argument.startswith('--config.') and key not in known:
      raise UserError(no_such_key(key))
  values = flags.FlagValues()
  argv = ['', *arguments]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    rest = values(argv)[1:]
  except flags.IllegalFlagValueError as error:
    # 'flag --config.train.steps=abc: ...'
    key, _, value = str(error).removeprefix('flag --').partition('=')
    if key not in known:
      raise UserError(str(error).splitlines()[0]) from error
    raise UserError(f'{key}={value.partition(": ")[0]}: must be {kind(known[key])}') from error
  except flags.Error as error:
    raise UserError(str(error).splitlines()[0]) from error
  if rest:
    raise UserError(f'unexpected argument {rest[0]!r}: see --help')
  overridden = values['config'].value
  check(overridden, 'command line')
  return overridden


def absolute_places(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the config with whole paths of its folders.

  Kept as they were given, they would lead elsewhere from another working directory.
  """
  config = config.copy_and_resolve_references()
  for key in PLACES:
    if config.data[key] and not store.is_url(config.data[key]):
      config.data[key] = str(files.place(config.data[key], f'config.data.{key}').absolute())
  return config


def flatten(config: Mapping[str, Any], prefix: str = 'config') -> Iterator[tuple[str, Any]]:
  """Yields all keys with their full names, and their values."""
  for key, value in config.items():
    if isinstance(value, Mapping | ml_collections.ConfigDict):
      yield from flatten(value, f'{prefix}.{key}')
    else:
      yield f'{prefix}.{key}', value


def differences(
  old: ml_collections.ConfigDict, new: ml_collections.ConfigDict, sections: Sequence[str] = ()
) -> list[str]:
  """Lists the keys whose values differ, as 'config.train.steps: 100 -> 200'."""
  before, after = dict(flatten(old)), dict(flatten(new))
  prefixes = tuple(f'config.{section}' for section in sections) or ('config',)
  return [
    f'{key}: {before[key]!r} -> {after[key]!r}'
    for key in before
    if key.startswith(prefixes) and before[key] != after[key]
  ]


def check_unchanged(
  before: ml_collections.ConfigDict,
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  free: tuple[str, ...],
) -> None:
  """Refuses to go on in a workdir with another config than it was started with.

  Args:
    before: what it was started with.
    config: what it is to go on with.
    workdir: to be named.
    free: prefixes of `differences` that do not matter.

  Raises:
    UserError: lists the keys that differ.
  """
  changed = [line for line in differences(before, config) if not line.startswith(free)]
  if changed:
    raise UserError(
      f'{workdir} was started with another config ({"; ".join(changed)}): use another --workdir'
    )


def bad_values(values: dict[str, object]) -> Iterator[tuple[str, str]]:
  """Yields the keys whose values are none of theirs, and what they must be, in words."""
  for key, choices in default.CHOICES.items():
    value = values[key]
    if not all(each in choices for each in (value if isinstance(value, tuple) else (value,))):
      yield key, ' or '.join(map(repr, choices))
  for words, (allows, keys) in default.RANGES.items():
    for key in keys:
      value = values[key]
      if not all(map(allows, value if isinstance(value, tuple) else (value,))):
        yield key, words
  for key, value in values.items():
    each = value if isinstance(value, tuple) else (value,)
    if any(isinstance(one, int) and abs(one) > default.LARGEST for one in each):
      yield key, f'at most {default.LARGEST}'


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the config as JSON text."""
  return json.dumps(config.to_dict(), indent=2) + '\n'


def from_json(
  text: str, source: str, absent: Mapping[str, Any] = types.MappingProxyType({})
) -> ml_collections.ConfigDict:
  """Returns the config of JSON text: the defaults, updated by it.

  Args:
    text: of `to_json`.
    source: what to call it in an error.
    absent: values of keys that it lacks, where they are not the defaults.

  Raises:
    UserError: it is no JSON, or does not fit the keys and types there are.
  """
  config = default.get_config()
  try:
    saved = json.loads(text)
    if not isinstance(saved, dict):
      raise UserError(f'it holds {type(saved).__name__}, not keys')
    values = dict(absent) | {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in flatten(saved)
      if key not in RETIRED
    }
    if wrong := mistakes(values):
      raise UserError('; '.join(wrong))
  except (json.JSONDecodeError, UserError) as error:
    raise UserError(f'{source} is no config of this version: {error}') from error
  config.update_from_flattened_dict(
    {
      key.removeprefix('config.'): RENAMED_VALUES.get(key, {}).get(value, value)
      for key, value in values.items()
    }
  )
  for key, words in bad_values({key.removeprefix('config.'): v for key, v in flatten(config)}):
    raise UserError(f'{source} is damaged: config.{key}={config[key]!r}: must be {words}')
  return config


def save(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the config into the workdir, which is made where it is missing."""
  files.write(workdir / FILE, to_json(config).encode())


def load(workdir: pathlib.Path) -> ml_collections.ConfigDict:
  """Returns the config of a workdir.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  path = workdir / FILE
  try:
    text = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{path}: {error.strerror}; --workdir must name a folder that train or import-authors made'
    ) from error
  return from_json(text.decode(errors='replace'), str(path), BEFORE)
