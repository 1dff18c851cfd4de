"""Sizes by the training images' own, and images that do not have their shape."""

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import arrays, image_size
from patch_svdd_jax.errors import UserError
from tests.support import categories

# Heights and widths: aspect ratios of 1.5, 1.25 and 1.5.
OWN = np.array([(400, 600), (800, 1000), (600, 900)])


@pytest.mark.parametrize(
  ('wanted', 'expected'),
  [
    ((256, 256), (256, 256)),
    ((512, 0), (512, 768)),
    ((0, 512), (341, 512)),
    ((0, 0), (600, 900)),
    ((1, 0), (1, 2)),
  ],
)
def test_open_sides_follow_the_median(wanted, expected):
  assert image_size.resolve(wanted, OWN) == expected


def test_sides_cannot_be_left_to_images_that_are_not_there():
  none = np.zeros((0, 2), np.int64)
  assert image_size.resolve((8, 9), none) == (8, 9)
  with pytest.raises(UserError, match=r'image_size=\(8, 0\): there are no training images'):
    image_size.resolve((8, 0), none)
  with pytest.raises(UserError, match=r'image_size=\(8, 0\): give both sides to this command'):
    image_size.check_given((8, 0))


def test_a_config_gets_the_size_where_a_side_is_open():
  config = default.get_config()
  assert image_size.resolved(config, (3, 4)) is config
  config.data.image_size = (0, 4)
  assert image_size.resolved(config, (3, 4)).data.image_size == (3, 4)
  assert config.data.image_size == (0, 4)


def test_stretched_images_are_counted_and_the_worst_is_named():
  names = ['same', 'almost', 'wide', 'tall']
  sizes = np.array([(20, 30), (200, 305), (200, 400), (300, 200)])
  text = image_size.stretch_summary(1.5, sizes, names)
  assert text.startswith('2 of 4 images have another aspect ratio than the training images (1.5,')
  assert text.endswith('most of all tall, 200 x 300 pixels, 2.25 times')
  assert image_size.stretch_summary(1.5, sizes[:2], names[:2]) is None
  assert image_size.stretch_warnings(1.5, sizes[1:3]) == [
    (),
    ('stretched 1.33 times: aspect ratio 2, of normal images 1.5',),
  ]


def test_folders_are_loaded_at_their_own_size(tmp_path, settings, make_category, caplog):
  root = make_category(tmp_path / 'nuts')
  loaded = data.load(settings(root=str(root), image_size=(0, 0)))
  own = (categories.HEIGHT, categories.WIDTH)
  assert loaded.train.images.shape == (3, *own, 3)
  assert loaded.test.masks.shape == (5, *own)
  np.testing.assert_array_equal(loaded.train.images[0], categories.pixels(0, 0))
  assert not caplog.records
  # Two training images with their sides exchanged stay in the minority.
  for name in ('train/good/003.png', 'test/good/002.png'):
    categories.save(root / name, categories.pixels(9).swapaxes(0, 1))
  loaded = data.load(settings(root=str(root), image_size=(24, 0)))
  assert loaded.train.images.shape == (4, 24, 20, 3)
  assert '2 of 10 images have another aspect ratio' in caplog.text
  assert 'most of all train/good/003.png, 12 x 10 pixels, 1.44 times' in caplog.text


def test_arrays_have_a_size_too():
  config = default.get_config().data
  config.image_size = (0, 12)
  dataset = arrays.dataset([np.zeros(shape, np.uint8) for shape in [(40, 60, 3), (20, 30)]], config)
  assert dataset.train.images.shape == (2, 8, 12, 3)
