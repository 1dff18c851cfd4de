"""Images that come as arrays: what is taken, how, and what is refused."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

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


class Foreign:
  """An array of a library that is not numpy."""

  def __init__(self, array, fails=False):
    self.array, self.fails = array, fails
    self.dtype, self.shape = f'torch.{array.dtype}', array.shape

  def __array__(self, dtype=None, copy=None):
    if self.fails:
      raise TypeError("can't convert cuda:0 device type tensor to numpy")
    return self.array

  def __iter__(self):
    return iter(self.array)


COLOUR, GREY = noise(9, 7, 3), noise(9, 7)


@pytest.mark.parametrize(
  'images',
  [
    noise(2, 9, 7, 3),
    noise(2, 9, 7, 1),
    jnp.asarray(noise(2, 9, 7, 3)),
    Foreign(noise(2, 9, 7, 3)),
    [COLOUR, GREY],
    (COLOUR, GREY),
    [Foreign(COLOUR), jnp.asarray(GREY)],
    (image for image in (COLOUR, GREY)),
    {1: COLOUR, 2: GREY}.values(),
    np.array([COLOUR, GREY, None], object)[:2],
    list(noise(2, 9, 7)),
  ],
  ids=lambda images: type(images).__name__,
)
def test_what_is_taken_for_several_images(images):
  given = arrays.listed(images)
  split = arrays.resized(given, settings(), arrays.numbered(len(given)))
  assert split.images.shape == (2, 12, 10, 3)
  assert split.sizes.tolist() == [[9, 7]] * 2


MAY_BE_ONE = r'\] may be one image, or several: give image\[None\] for one in colour, \[image\] for'


@pytest.mark.parametrize(
  ('images', 'line'),
  [
    (COLOUR, r'uint8\[9, 7, 3' + MAY_BE_ONE),
    (GREY, r'uint8\[9, 7' + MAY_BE_ONE),
    (noise(5, 9, 7), r'uint8\[5, 9, 7' + MAY_BE_ONE),
    (noise(3, 9, 7), r'uint8\[3, 9, 7' + MAY_BE_ONE),
    (noise(9, 7, 4), r'uint8\[9, 7, 4' + MAY_BE_ONE),
    (noise(2, 2, 9, 7, 3), r'uint8\[2, 2, 9, 7, 3' + MAY_BE_ONE),
    (jnp.asarray(COLOUR), r'uint8\[9, 7, 3' + MAY_BE_ONE),
    (Foreign(COLOUR), r'uint8\[9, 7, 3' + MAY_BE_ONE),
    (np.uint8(3), r'uint8\[' + MAY_BE_ONE),
    ([], 'no images: give at least one'),
    (noise(0, 9, 7, 3), 'no images: give at least one'),
    (iter(()), 'no images: give at least one'),
    ('part.png', 'images are of type str: give an array or a list of uint8'),
    (pathlib.Path('part.png'), 'images are of type PosixPath: give an array'),
    ({'a': COLOUR}, 'images are of type dict: give an array'),
    (None, 'images are of type NoneType: give an array'),
    (7, 'images are of type int: give an array'),
    (
      Foreign(noise(2, 9, 7, 3), fails=True),
      r'images: uint8\[2, 9, 7, 3\] is no array of num',
    ),
  ],
  ids=lambda value: type(value).__name__,
)
def test_what_is_no_collection_of_images_is_refused(images, line):
  with pytest.raises(UserError, match=line):
    arrays.listed(images)


@pytest.mark.parametrize(
  ('image', 'line'),
  [
    ('part.png', 'a is of type str: give uint8'),
    (Image.new('P', (9, 7)), 'a is of type Image: give uint8'),
    (COLOUR.tolist(), 'a is of type list: give uint8'),
    (COLOUR > 9, r'a is bool\[9, 7, 3\]: give .* as image \* np.uint8\(255\)'),
    (COLOUR / 255, r'a is float64\[9, 7, 3\]: give .* as np.uint8\(np.round\(image \* 255\)\)'),
    (COLOUR.astype(np.int16), r'a is int16\[9, 7, 3\]'),
    (COLOUR.astype(object), r'a is object\[9, 7, 3\]'),
    (noise(9, 7, 4), r'a is uint8\[9, 7, 4\]: give .* as image\[\.\.\., :3\] without transparency'),
    (noise(9, 7, 2), r'a is uint8\[9, 7, 2\]'),
    (noise(3, 9, 7), r'a is uint8\[3, 9, 7\]: give .* as image\.transpose\(1, 2, 0\)'),
    (Foreign(noise(1, 9, 7)), r'a is uint8\[1, 9, 7\]: give .* as image\.transpose\(1, 2, 0\)'),
    (
      Foreign(COLOUR, fails=True),
      r"a: uint8\[9, 7, 3\] is no array of numpy: can't conv",
    ),
  ],
  ids=lambda value: type(value).__name__,
)
def test_what_is_nearly_an_image_is_refused_with_what_to_do(image, line):
  with pytest.raises(UserError, match=line):
    arrays.to_rgb(image, 'a')


def test_names_are_one_for_each():
  assert arrays.named(None, 2) == ['image 0', 'image 1']
  assert arrays.named((pathlib.Path('a'), 7), 2) == ['a', '7']
  for names in (['a'], ['a', 'b', 'c'], [], 'ab', 7):
    with pytest.raises(UserError, match=r'names for 2 images: give one for each|names are of type'):
      arrays.named(names, 2)
