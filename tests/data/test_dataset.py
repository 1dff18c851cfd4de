"""Splits: their images are taken and joined with all that is known about them."""

import dataclasses

import numpy as np
import pytest

from patch_svdd_jax.data import dataset
from patch_svdd_jax.data.dataset import Split

SIZE = (4, 6)
REGION = np.arange(24).reshape(SIZE) % 3 == 0


def split_of(first, count, regions=None):
  """Normal images whose grey levels are numbers from `first` on."""
  numbers = np.arange(first, first + count)
  return Split(
    images=np.broadcast_to(numbers[:, None, None, None], (count, *SIZE, 3)).astype(np.uint8),
    masks=np.zeros((count, *SIZE), bool),
    has_mask=np.ones(count, bool),
    labels=np.zeros(count, bool),
    defects=('good',) * count,
    names=tuple(f'{number}.png' for number in numbers),
    sizes=np.full((count, 2), SIZE),
    appearance=np.zeros((count, 4), np.float32),
    digests=tuple(map(str, numbers)),
    regions=regions,
  )


def fixed(count, region=REGION):
  return np.broadcast_to(region, (count, *SIZE))


def own(numbers):
  """A region of each image, that tells which one it is."""
  return np.arange(24).reshape(SIZE)[None] == np.asarray(numbers)[:, None, None]


def test_images_without_a_region_have_none_when_taken_and_joined():
  split = dataset.concatenate([split_of(0, 3).take(np.array([2, 0])), split_of(3, 1)])
  assert split.regions is None
  assert split.fixed_region is None
  assert split.names == ('2.png', '0.png', '3.png')


def test_a_fixed_region_stays_a_view_of_one():
  split = split_of(0, 5, fixed(5))
  taken = split.take(np.array([4, 1, 1]))
  joined = dataset.concatenate([taken, split, split.take(np.arange(0)), split_of(9, 0)])
  for found, count in ((taken, 3), (joined, 8), (split.take(np.arange(0)), 0)):
    assert found.regions.shape == (count, *SIZE)
    assert found.regions.strides[0] == 0
  np.testing.assert_array_equal(joined.fixed_region, REGION)
  assert split.take(np.arange(0)).fixed_region is None


def test_regions_of_each_image_go_with_it():
  split = split_of(0, 5, own(range(5)))
  assert split.fixed_region is None
  np.testing.assert_array_equal(split.take(np.array([4, 1])).regions, own([4, 1]))
  joined = dataset.concatenate([split.take(np.array([3])), split_of(7, 2, own([7, 8]))])
  np.testing.assert_array_equal(joined.regions, own([3, 7, 8]))


@pytest.mark.parametrize('regions', [None, fixed(2, ~REGION)])
def test_regions_of_different_kinds_are_joined(regions):
  joined = dataset.concatenate([split_of(0, 2, fixed(2)), split_of(2, 2, regions)])
  assert joined.fixed_region is None
  np.testing.assert_array_equal(joined.regions[:2], fixed(2))
  np.testing.assert_array_equal(joined.regions[2:], True if regions is None else regions)


def test_every_field_is_joined():
  both = dataset.concatenate([split_of(0, 2, fixed(2)), split_of(2, 1, fixed(1))])
  expected = split_of(0, 3, fixed(3))
  for field in dataclasses.fields(Split):
    np.testing.assert_array_equal(getattr(both, field.name), getattr(expected, field.name))
