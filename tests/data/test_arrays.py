"""Images that come as arrays: what is taken, how, and what is refused."""

import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import appearance, arrays, lighting
from patch_svdd_jax.errors import UserError


def settings(**changes):
  config = default.get_config().data
  config.update({'image_size': (12, 10), 'resize': 'box'} | changes)
  return config


def noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_images_of_any_size_are_resized_and_described():
  given = [noise(24, 20, 3), noise(12, 10), noise(12, 10, 1)]
  split = arrays.resized(given, settings(), ['a', 'b', 'c'])
  assert split.images.shape == (3, 12, 10, 3)
  blocks = given[0].reshape(12, 2, 10, 2, 3).astype(float).mean((1, 3))
  assert np.abs(split.images[0] - blocks).max() <= 1  # rounded twice, along rows and columns
  np.testing.assert_array_equal(split.images[1], np.repeat(given[1][..., None], 3, -1))
  np.testing.assert_array_equal(split.images[2], np.repeat(given[2], 3, -1))
  np.testing.assert_array_equal(split.sizes, [(24, 20), (12, 10), (12, 10)])
  np.testing.assert_array_equal(split.appearance[0], appearance.image_statistics(split.images[0]))
  assert split.names == ('a', 'b', 'c')


@pytest.mark.parametrize(
  'image',
  [noise(5, 5, 4), noise(5, 5, 3).astype(np.float32), noise(5), noise(0, 5, 3), noise(2, 5, 5, 3)],
)
def test_what_is_no_image_is_refused(image):
  with pytest.raises(UserError, match=r'image 1 is .*give uint8'):
    arrays.resized([noise(5, 5, 3), image], settings(), arrays.numbered(2))


def test_a_data_set_of_arrays_is_lit_and_divided():
  given = noise(10, 12, 10, 3)
  config = settings(light='standardised', held_out=0.2)
  dataset = arrays.dataset(list(given), config)
  assert (len(dataset.train), len(dataset.held_out), len(dataset.test)) == (8, 2, 0)
  lit = lighting.standardise(given)
  np.testing.assert_array_equal(dataset.held_out.images, lit[[2, 7]])
  np.testing.assert_array_equal(
    dataset.held_out.appearance[0], appearance.image_statistics(given[2])
  )
  with pytest.raises(UserError, match='no images'):
    arrays.dataset([], config)
