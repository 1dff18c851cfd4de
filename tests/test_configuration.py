"""Configs from files, from the command line and from a workdir; what is refused, by name."""

import json
import pathlib

import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError

HEAD = """
from patch_svdd_jax.configs import default

def get_config():
  config = default.get_config()
"""


@pytest.fixture
def write(tmp_path):
  def write_file(line, head=HEAD, tail='  return config\n'):
    path = tmp_path / 'mine.py'
    path.write_text(f'{head}  {line}\n{tail}')
    return path

  return write_file


def refusal(function, *arguments):
  """The one line of a UserError."""
  with pytest.raises(UserError) as caught:
    function(*arguments)
  line = str(caught.value)
  assert line.isprintable()
  assert '\\' not in line
  assert len(line) < 300
  return line


def override(*arguments):
  return configuration.override(default.get_config(), arguments)


# The command line.


@pytest.mark.parametrize(
  ('argument', 'key', 'value'),
  [
    ('--config.train.steps=200', 'config.train.steps', 200),
    ('--config.encoder.scales=(64,)', 'config.encoder.scales', (64,)),
    ('--config.encoder.scales=(128, 64, 32)', 'config.encoder.scales', (128, 64, 32)),
    ('--config.encoder.scales=64', 'config.encoder.scales', (64,)),
    ('--config.data.image_size=[96,128]', 'config.data.image_size', (96, 128)),
    ('--config.train.train_last_layer=true', 'config.train.train_last_layer', True),
    ('--config.train.train_last_layer', 'config.train.train_last_layer', True),
    ('--config.train.learning_rate=3e-4', 'config.train.learning_rate', 3e-4),
    ('--config.train.svdd_weight=2', 'config.train.svdd_weight', 2.0),
    ('--config.train.augment.gain=0.1', 'config.train.augment.gain', 0.1),
    ('--config.data.root=/a path/with=signs', 'config.data.root', '/a path/with=signs'),
    ('--config.data.category=', 'config.data.category', ''),
  ],
)
def test_override(argument, key, value):
  before, after = (
    dict(configuration.flatten(c)) for c in (default.get_config(), override(argument))
  )
  assert after.pop(key) == value
  assert type(value) is type(before.pop(key))
  assert after == before


def test_several_overrides_and_none():
  config = override('--config.seed=1', '--config.train.steps', '5', '--config.seed=2')
  assert (config.seed, config.train.steps) == (2, 5)
  assert override().to_dict() == default.get_config().to_dict()


@pytest.mark.parametrize(
  ('argument', 'line'),
  [
    (
      '--config.train.stepss=3',
      'no such key: config.train.stepss; did you mean config.train.steps?',
    ),
    ('--config.trian.steps=3', 'no such key: config.trian.steps; did you mean config.train.steps?'),
    ('--config.train.qqqqq.zzzzzzzzzz=3', '--help lists all keys'),
    ('--config.seed.x=3', 'no such key: config.seed.x; did you mean config.seed?'),
    ('--config.train=3', 'no such key: config.train;'),
    ('--config.encoder.scales[0]=3', 'did you mean config.encoder.scales?'),
    ('--config.train.steps=abc', 'config.train.steps=abc: must be a whole number'),
    ('--config.train.steps=1.5', 'config.train.steps=1.5: must be a whole number'),
    ('--config.train.steps=None', 'config.train.steps=None: must be a whole number'),
    ('--config.seed=', 'config.seed=: must be a whole number'),
    ('--config.train.learning_rate=fast', 'config.train.learning_rate=fast: must be a number'),
    ('--config.train.train_last_layer=maybe', 'train_last_layer=maybe: must be true or false'),
    (
      '--config.encoder.scales=abc',
      "config.encoder.scales=('abc',): must be a tuple, each a whole",
    ),
    ('--config.encoder.scales=(64.5,)', 'config.encoder.scales=(64.5,): must be a tuple'),
    (
      '--config.encoder.scales=()',
      'config.encoder.scales=(): must be a tuple, each a whole number',
    ),
    (
      "--config.score.scale_weights=('a',1)",
      "config.score.scale_weights=('a', 1): must be a tuple, each a number",
    ),
    ('--config.score.features=()', 'config.score.features=(): must be a tuple, each text'),
    ('--config.train.steps', 'Missing value for flag --config.train.steps'),
    ('--config=other.py', 'Overriding config is not allowed'),
    ('--confg.seed=3', "Unknown command line flag 'confg.seed'"),
    ('stray', "unexpected argument 'stray': see --help"),
  ],
)
def test_refused_override(argument, line):
  assert line in refusal(override, argument)


# Config files.


def test_a_file_of_ones_own(write):
  path = write('config.train.update({"steps": 7, "learning_rate": 1})')
  config = configuration.read(str(path))
  assert config.train.steps == 7
  assert type(config.train.learning_rate) is float
  assert configuration.differences(default.get_config(), config) == [
    'config.train.learning_rate: 0.0001 -> 1.0',
    'config.train.steps: 10000 -> 7',
  ]


def test_a_files_argument(write):
  head = HEAD.replace('get_config()', 'get_config(root="none")', 1)
  path = write('config.data.root = root', head=head)
  assert configuration.read(f'{path}:/data/a:b').data.root == '/data/a:b'
  assert configuration.read(f'{path}:').data.root == ''
  assert configuration.read(str(path)).data.root == 'none'


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    ('config.train.stepss = 3', ':6: no such key: stepss; did you mean steps?'),
    ('config["train"]["stepss"] = 3', ':6: no such key: stepss; did you mean steps?'),
    ('config.update({"train": {"stepss": 3}})', ':6: no such key: stepss; did you mean steps?'),
    ('config.trian.steps = 3', ':6: no such key: trian; did you mean train?'),
    ('config.colour = "red"', ':6: no such key: colour; --help lists all keys'),
    ('config.train.steps = "3"', ':6: steps=3 is text, must be a whole number'),
    ('config.train.steps = 3.5', ':6: steps=3.5 is a number, must be a whole number'),
    ('config.train = 3', ':6: train=3 is a whole number, must be a section'),
    ('config.encoder.scales = 64', ':6: scales=64 is a whole number, must be a tuple'),
    ('config.encoder.scales = ("a",)', ": config.encoder.scales=('a',): must be a tuple, each a"),
    ('config.train.steps = None', ': config.train.steps=None: must be a whole number'),
    ('config.train.steps = True', ': config.train.steps=True: must be a whole number'),
    (
      'config.unlock(); config.train.stepss = 3',
      ': no such key: config.train.stepss; did you mean',
    ),
    ('config.unlock(); del config.train.steps', ': lacks config.train.steps; start from'),
    ('del config.train', ':6: AttributeError: '),
    ('config.train.steps = several', ":6: NameError: name 'several' is not defined"),
    ('import nosuchmodule', ":6: ModuleNotFoundError: No module named 'nosuchmodule'"),
    ('{}["wood"]', ':6: KeyError: wood'),
    ('raise ValueError', ':6: ValueError: no message'),
    ('return 3', ': get_config returns int, not a ConfigDict'),
    ('config.seed = (', ":6: SyntaxError: '(' was never closed"),
  ],
)
def test_refused_file(write, line, expected):
  path = write(line)
  assert f'{path}{expected}' in refusal(configuration.read, str(path))


def test_a_file_without_get_config(write):
  for head in ('if 1:\n', 'get_config = 3\nif 1:\n'):
    path = write('config = 3', head=head, tail='')
    assert refusal(configuration.read, str(path)) == f'{path}: defines no function get_config'


def test_an_argument_that_a_file_does_not_take(write):
  path = write('pass')
  assert f'{path}: TypeError: get_config() takes 0' in refusal(configuration.read, f'{path}:screw')


def test_a_files_own_user_error(write):
  path = write('raise UserError("no such moon")', head='from patch_svdd_jax.errors import *' + HEAD)
  assert refusal(configuration.read, str(path)) == 'no such moon'


# Files by name.


def test_packaged_files_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('mvtec:tile', 'mvtec.py:tile', 'configs/mvtec.py:tile'):
    assert configuration.read(name).data.category == 'tile'
  pathlib.Path('mvtec.py').write_text('get_config = None')
  assert 'mvtec.py: defines no' in refusal(configuration.read, 'mvtec.py:tile')


@pytest.mark.parametrize(
  'name', ['nosuch', '', '/nowhere/mvtec.py', '__init__', '.', 'nosuch.py:a']
)
def test_a_missing_file_lists_the_packaged_ones(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  line = refusal(configuration.read, name)
  assert f'no config file {name.partition(":")[0]!r}: give a path, or one of ' in line
  names = line.rpartition(' one of ')[2].split(', ')
  assert {'default', 'folder', 'mvtec', 'textures'} <= set(names)
  assert not [name for name in names if name.startswith('_')]


# A workdir's config.


def test_save_and_load_keep_values_and_types(tmp_path):
  config = override(
    '--config.encoder.scales=(64,)',
    '--config.data.root=/ä "b"',
    '--config.seed=3',
    '--config.score.features=hidden',
    '--config.score.scale_weights=(0.5,1.0)',
  )
  assert (config.score.features, config.score.scale_weights) == (('hidden',), (0.5, 1.0))
  configuration.save(config, tmp_path / 'runs/a')
  loaded = configuration.load(tmp_path / 'runs/a')
  for (key, value), (other, saved) in zip(
    configuration.flatten(config), configuration.flatten(loaded), strict=True
  ):
    assert (key, value, type(value)) == (other, saved, type(saved))
  assert configuration.differences(config, loaded) == []
  assert [path.name for path in (tmp_path / 'runs/a').iterdir()] == ['config.json']
  assert json.loads((tmp_path / 'runs/a/config.json').read_text())['encoder']['scales'] == [64]


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('{"train": {"momentum": 0.9}}', 'no such key: config.train.momentum; '),
    (
      '{"trian": {"steps": 3}}',
      'no such key: config.trian.steps; did you mean config.train.steps?',
    ),
    ('{"train": {"steps": "many"}}', "config.train.steps='many': must be a whole number"),
    ('{"train": {"steps": 3.5}}', 'config.train.steps=3.5: must be a whole number'),
    ('{"train": {"train_last_layer": 1}}', 'train_last_layer=1: must be true or false'),
    ('{"encoder": {"scales": ["a"]}}', "config.encoder.scales=('a',): must be a tuple"),
    ('{"seed": null}', 'config.seed=None: must be a whole number'),
    ('{"train": 3}', 'no such key: config.train; '),
    ('[1]', 'it holds list, not keys'),
    ('{"seed": ', 'Expecting value: line 1 column 10'),
    ('', 'Expecting value: line 1 column 1'),
  ],
)
def test_a_config_of_another_version(tmp_path, text, expected):
  (tmp_path / 'config.json').write_text(text)
  line = refusal(configuration.load, tmp_path)
  assert line.startswith(f'{tmp_path}/config.json is no config of this version: ')
  assert expected in line


def test_a_tuple_that_is_empty_by_default_may_be_filled():
  for text, expected in (('()', ()), ('(0.5,1)', (0.5, 1)), ('.25,2', (0.25, 2))):
    config = override(f'--config.score.scale_weights={text}')
    assert config.score.scale_weights == expected
    again = configuration.from_json(configuration.to_json(config), 'saved')
    assert again.score.scale_weights == expected


def test_an_older_config_takes_new_keys_from_the_defaults():
  config = configuration.from_json('{"train": {"learning_rate": 1}}', 'old')
  assert configuration.differences(default.get_config(), config) == [
    'config.train.learning_rate: 0.0001 -> 1.0'
  ]


def test_renamed_values_of_an_older_run_change_nothing(tmp_path):
  config = override('--config.train.images=sharded')
  (tmp_path / 'config.json').write_text(
    configuration.to_json(config).replace('"sharded"', '"divided"')
  )
  configuration.check_unchanged(configuration.load(tmp_path), config, tmp_path, ())


def test_an_older_config_has_keys_that_nobody_needs():
  old = {key.removeprefix('config.score.'): 'anything' for key in configuration.RETIRED}
  config = configuration.from_json(json.dumps({'score': old | {'neighbours': 3}}), 'old')
  assert configuration.differences(default.get_config(), config) == [
    'config.score.neighbours: 1 -> 3'
  ]


def test_a_workdir_without_config(tmp_path):
  line = refusal(configuration.load, tmp_path / 'nosuch')
  assert f'{tmp_path}/nosuch/config.json: No such file or directory; --workdir must name' in line


def test_a_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  line = refusal(configuration.save, default.get_config(), tmp_path / 'file')
  assert line == f'cannot write {tmp_path}/file/config.json: a file has the name of a folder'


def test_differences():
  old = default.get_config()
  new = override(
    '--config.seed=5', '--config.encoder.scales=(64,)', '--config.train.augment.gain=1'
  )
  expected = {
    'encoder': 'config.encoder.scales: (64, 32) -> (64,)',
    'seed': 'config.seed: 0 -> 5',
    'train': 'config.train.augment.gain: 0.0 -> 1.0',
  }
  assert configuration.differences(old, new) == list(expected.values())
  assert configuration.differences(old, new, ['data']) == []
  assert configuration.differences(old, new, ['train', 'encoder']) == [
    expected['encoder'],
    expected['train'],
  ]
  assert configuration.differences(old, new, ['train.augment']) == [expected['train']]
