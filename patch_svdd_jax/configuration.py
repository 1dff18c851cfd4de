"""Configs: read from files and the command line, kept in a workdir, compared."""

import json
import os
import pathlib
import runpy
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError

FILE = 'config.json'


def find(name: str) -> pathlib.Path:
  """The config file called `name`: a path, or one of the configs that come with the package."""
  path = pathlib.Path(name)
  if path.is_file():
    return path
  installed = pathlib.Path(str(resources.files('patch_svdd_jax.configs')))
  packaged = installed / path.with_suffix('.py').name
  if packaged.is_file():
    return packaged
  names = sorted(file.stem for file in installed.glob('*.py') if file.stem != '__init__')
  raise UserError(f'no config file {name}: give a path, or one of {", ".join(names)}')


def read(name: str) -> ml_collections.ConfigDict:
  """The config of `FILE[:ARGUMENT]`, by the file's get_config(ARGUMENT).

  Raises:
    UserError: there is no such file, it has no get_config, or it sets a key that does not exist.
  """
  file, colon, argument = name.partition(':')
  path = find(file)
  try:
    get_config = runpy.run_path(str(path))['get_config']
    return get_config(argument) if colon else get_config()
  except KeyError as error:
    raise UserError(f'{path}: {error.args[0]} is not defined there') from error
  except (AttributeError, TypeError, SyntaxError) as error:
    raise UserError(f'{path}: {first_line(error)}') from error


def first_line(error: Exception) -> str:
  """An error's message on one line, without the dump of all fields that ml_collections adds."""
  text = str(error.args[0]) if error.args else str(error)
  lines = text.replace('\\n', '\n').split(' Other fields present')[0].splitlines()
  return ', '.join(line.strip('"\' ') for line in lines)


def override(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> ml_collections.ConfigDict:
  """Applies `--config.section.key=value` arguments.

  Raises:
    UserError: a key does not exist or a value has the wrong type, by name.
  """
  values = flags.FlagValues()
  argv = ['', *arguments]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    rest = values(argv)[1:]
  except flags.Error as error:
    raise UserError(str(error).splitlines()[0]) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(f'no such config key in {" ".join(arguments)}: {first_line(error)}') from error
  if rest:
    raise UserError(f'unexpected argument {rest[0]!r}: see --help')
  return values['config'].value


def flatten(config: Mapping[str, Any], prefix: str = 'config') -> Iterator[tuple[str, Any]]:
  """All keys with their full names, and their values."""
  for key, value in config.items():
    if isinstance(value, Mapping | ml_collections.ConfigDict):
      yield from flatten(value, f'{prefix}.{key}')
    else:
      yield f'{prefix}.{key}', value


def differences(
  old: ml_collections.ConfigDict, new: ml_collections.ConfigDict, sections: Sequence[str] = ()
) -> list[str]:
  """The keys whose values differ, as 'config.train.steps: 100 -> 200'; of `sections`, or of all."""
  before, after = dict(flatten(old)), dict(flatten(new))
  prefixes = tuple(f'config.{section}' for section in sections) or ('config',)
  return [
    f'{key}: {before[key]!r} -> {after[key]!r}'
    for key in before
    if key.startswith(prefixes) and before[key] != after[key]
  ]


def to_json(config: ml_collections.ConfigDict) -> str:
  """The config as JSON text."""
  return json.dumps(config.to_dict(), indent=2) + '\n'


def from_json(text: str, source: str) -> ml_collections.ConfigDict:
  """The config of JSON text: the defaults, updated by it, so that unknown keys are refused.

  Raises:
    UserError: it is no JSON, or does not fit the keys and types there are.
  """
  try:
    config = default.get_config()
    for key, value in flatten(json.loads(text)):
      *sections, name = key.split('.')[1:]
      section = config
      for part in sections:
        section = section[part]
      section[name] = tuple(value) if isinstance(value, list) else value
  except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
    raise UserError(f'{source} is no config of this version: {first_line(error)}') from error
  return config


def save(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the config into the workdir, which is made where it is missing."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    unfinished = workdir / (FILE + '.tmp')
    unfinished.write_text(to_json(config))
    os.replace(unfinished, workdir / FILE)
  except OSError as error:
    raise UserError(f'cannot write {workdir / FILE}: {error.strerror}') from error


def load(workdir: pathlib.Path) -> ml_collections.ConfigDict:
  """The config of a workdir.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  path = workdir / FILE
  try:
    text = path.read_text()
  except OSError as error:
    raise UserError(
      f'{path}: {error.strerror}; --workdir must name a folder that train or import-authors made'
    ) from error
  return from_json(text, str(path))
