"""Every config file gives a valid config of the same keys, and says what it is and how to run."""

import ast
import pathlib

import pytest

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.configs import default, mvtec
from patch_svdd_jax.data.mvtec import COUNTS
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
FILES = sorted(FOLDER.glob('[!_]*.py'))


def test_there_are_files():
  assert {'default', 'dataset', 'folder', 'mvtec', 'textures'} <= {path.stem for path in FILES}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_valid_config(path):
  config = configuration.read(str(path))
  keys = [key for key, _ in configuration.flatten(default.get_config())]
  assert [key for key, _ in configuration.flatten(config)] == keys
  assert config.is_locked
  config_rules.validate(config)
  # What a workdir keeps of it is the same config.
  text = configuration.to_json(config)
  assert configuration.from_json(text, '').to_dict() == config.to_dict()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_docstring_with_its_command(path, tmp_path, monkeypatch):
  """The command that the docstring tells people to type works, also without a checkout."""
  text = ast.get_docstring(ast.parse(path.read_text()), clean=False)
  first, blank, *lines = text.splitlines()
  assert first.endswith('.')
  assert not blank
  [command] = [line.split() for line in lines if line.startswith('  python ')]
  python, script, option, name, *overrides, workdir_option, workdir = command
  assert (python, script, option, workdir_option) == ('python', 'train.py', '--config', '--workdir')
  assert workdir.startswith('runs/')
  assert pathlib.Path(name.partition(':')[0]).name == path.name
  monkeypatch.chdir(tmp_path)
  config_rules.read(name, overrides)


def test_the_authors_settings():
  config = default.get_config()
  arch = architecture.from_config(config.encoder)
  assert [(c.kernel, c.stride, c.features) for c in arch.base] == [
    (3, 2, 32),
    *((3, 1, features) for features in (64, 128, 128, 64, 32, 32, 64)),
  ]
  assert (arch.scales, arch.merge_features, arch.embed_dim) == ((64, 32), 128, 64)
  assert config.score.strides == (16, 4)
  assert (config.train.batch_size, config.train.learning_rate) == (64, 1e-4)
  assert config.train.position_pairs == 'clip'
  assert config.train.mean == 'image'
  assert not config.train.train_last_layer
  assert config.train.augment.to_dict() == {
    'rgb_shift': 0.02,
    'pixel_noise': 0.02,
    'brightness': 0.0,
    'gain': 0.0,
  }


def test_mvtec_trains_for_300_epochs():
  assert mvtec.get_config('screw').train.steps == 300 * 320 * 100 // 64 == 150_000
  assert mvtec.get_config().data.category == 'screw'
  for category, counts in COUNTS.items():
    config = configuration.read(f'mvtec:{category}')
    assert config.train.steps == 300 * counts.train * 100 // 64
    assert (config.data.category, config.data.resize) == (category, 'nearest')


@pytest.mark.parametrize('name', ['mvtec:screws', 'textures:marble', 'mvtec:', 'dataset:mpdd'])
def test_an_unknown_category(name):
  config = configuration.read(name)
  with pytest.raises(UserError, match=r'config\.data\.category=.*: no such category; choose of'):
    data.load(config.data)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('dataset:visa:candle', ('visa', 'candle', (256, 256))),
    ('dataset:kolektor_sdd2', ('kolektor_sdd2', 'all', (256, 256))),
    ('laptop:dataset:btad:02', ('btad', '02', (128, 128))),
  ],
)
def test_a_published_data_set(name, expected):
  data_settings = configuration.read(name).data
  assert (data_settings.name, data_settings.category, data_settings.image_size) == expected


def test_a_folder_of_ones_own(tmp_path):
  config = configuration.read(f'folder:{tmp_path}')
  assert (config.data.name, config.data.root) == ('folder', str(tmp_path))
  with pytest.raises(UserError, match=r'train/good'):
    data.load(config.data)
  with pytest.raises(UserError, match=r'config\.data\.root is empty'):
    data.load(configuration.read('folder').data)
