import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import sources
from patch_svdd_jax.errors import UserError
from tests.support import categories


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Two parts, whose names sort as numbers, and what is none."""
  folder = tmp_path_factory.mktemp('parts')
  for seed, name in enumerate(['part 10', 'part 2']):
    categories.write(folder / 'parts' / name, seed)
  (folder / 'parts/notes/train').mkdir(parents=True)
  (folder / 'parts/list.txt').touch()
  (folder / 'empty').mkdir()
  return folder


def config_of(place, category, name='folder', root='parts'):
  config = default.get_config().data
  config.update(name=name, category=category, prepared=str(place / 'prepared'))
  config.update(root=str(place / root) if root else '', image_size=(24, 20))
  return config


def test_the_folders_with_normal_images_are_categories(place):
  assert sources.present(config_of(place, 'all')) == ['part 2', 'part 10']


def test_those_of_the_embedded_data_set(place):
  assert sources.present(config_of(place, '', 'textures')) == ['brick', 'grass', 'gravel']


@pytest.mark.parametrize('name', ['mvtec', 'folder', 'visa'])
def test_a_place_without_any_is_refused(place, name):
  with pytest.raises(UserError, match=r'empty: holds no category of'):
    sources.present(config_of(place, 'all', name, 'empty'))


def test_what_is_prepared_needs_no_download(place):
  config = config_of(place, 'screw', 'mvtec', 'mvtec')
  with pytest.raises(UserError, match=r'config.data.prepared: holds no category of mvtec'):
    sources.present(config_of(place, 'all', 'mvtec', ''))
  categories.write(place / 'mvtec/screw')
  data.load(config)
  assert sources.present(config_of(place, 'all', 'mvtec', '')) == ['screw']


@pytest.mark.parametrize(
  ('name', 'category', 'expected'),
  [
    ('mvtec', 'all', True),
    ('folder', 'all', True),
    ('textures', 'all', True),
    ('mvtec', 'screw', False),
    ('mvtec', 'multiclass', False),
    ('kolektor_sdd2', 'all', False),  # its only one
  ],
)
def test_what_names_every_category(place, name, category, expected):
  assert sources.names_every(config_of(place, category, name)) is expected


@pytest.mark.parametrize('held_out', [0.0, 0.5])
def test_all_as_one(place, held_out):
  """The images of each category follow one another, by names that tell them apart."""
  names = ['part 2', 'part 10']
  parts = [data.load(config_of(place, name)) for name in names]
  config = config_of(place, 'multiclass')
  config.held_out = held_out
  found = data.load(config)
  assert found.name == 'folder/multiclass'
  assert found.categories == ('part 2', 'part 10')
  expected = np.concatenate([part.test.images for part in parts])
  np.testing.assert_array_equal(found.test.images, expected)
  np.testing.assert_array_equal(
    found.test.masks, np.concatenate([part.test.masks for part in parts])
  )
  assert found.test.names[0] == 'part 2/test/good/000.png'
  assert found.test.names[-1] == 'part 10/test/scratch/001.png'
  assert set(found.test.defects) == {
    'good',
    *(f'{name}/{kind}' for name in names for kind in ('hole', 'scratch')),
  }
  assert len(found.train) + len(found.held_out) == 6
  assert len(found.held_out) == 6 * held_out
