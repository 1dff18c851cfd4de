"""Patch grids and coverage weights against loops over patches and pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import geometry

# extent, receptive field, stride: nothing left over, something, one patch, gaps between patches
AXES = [(256, 64, 16), (97, 32, 4), (131, 32, 6), (32, 32, 2), (33, 32, 2), (50, 8, 11), (7, 1, 1)]


def patches_of(extent, receptive_field, stride):
  """The first pixel of every patch inside the axis."""
  return [first for first in range(0, extent, stride) if first + receptive_field <= extent]


def axis_mean(scores, extent, receptive_field, stride):
  """The mean of the patches that cover each pixel; the nearest covered pixel's where none does."""
  scored = list(zip(patches_of(extent, receptive_field, stride), scores, strict=True))
  covering = {
    pixel: [score for first, score in scored if first <= pixel < first + receptive_field]
    for pixel in range(extent)
  }
  covered = [pixel for pixel in range(extent) if covering[pixel]]
  nearest = [min(covered, key=lambda other: abs(other - pixel)) for pixel in range(extent)]
  return np.array([np.mean(covering[pixel]) for pixel in nearest])


@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 50))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_grid_extent_counts_the_patches_inside(receptive_field, room, stride):
  extent = receptive_field + room
  expected = len(patches_of(extent, receptive_field, stride))
  assert geometry.grid_extent(extent, receptive_field, stride) == expected


def test_grid_shape_is_rows_by_columns():
  # The authors' grids on 256 x 256 pixels, and one that is not square.
  assert geometry.grid_shape((256, 256), 64, 16) == (13, 13)
  assert geometry.grid_shape((256, 256), 32, 4) == (57, 57)
  assert geometry.grid_shape((97, 131), 64, 16) == (3, 5)
  assert geometry.patch_count((97, 131), 64, 16) == 15


@pytest.mark.parametrize('image_size', [(31, 64), (64, 31)])
def test_an_image_smaller_than_a_patch_is_refused(image_size):
  with pytest.raises(UserError, match=r'31 pixels cannot hold a 32-pixel patch.*image_size'):
    geometry.grid_shape(image_size, 32, 4)


@pytest.mark.parametrize(('extent', 'receptive_field', 'stride'), AXES)
def test_coverage_weights_are_the_mean_over_covering_patches(extent, receptive_field, stride):
  weights = geometry.coverage_weights(extent, receptive_field, stride)
  assert weights.dtype == np.float32
  scores = np.random.default_rng(0).normal(size=weights.shape[1])
  expected = axis_mean(scores, extent, receptive_field, stride)
  np.testing.assert_allclose(weights.astype(np.float64) @ scores, expected, atol=1e-6)


@given(st.integers(1, 20), st.integers(0, 40), st.integers(1, 25))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_coverage_weights_are_a_mean(receptive_field, room, stride):
  weights = geometry.coverage_weights(receptive_field + room, receptive_field, stride)
  assert (weights >= 0).all()
  np.testing.assert_allclose(weights.sum(axis=1, dtype=np.float64), 1, atol=1e-6)


def region_of(kind, shape):
  """A region of an image, bool[H, W]."""
  rows, columns = np.ogrid[: shape[0], : shape[1]]
  radius = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) / min(shape)
  return {
    'all': np.ones(shape, bool),
    'none': np.zeros(shape, bool),
    'stripe': np.broadcast_to(abs(rows - shape[0] // 3) < 5, shape),
    'ring': (radius > 0.2) & (radius < 0.4),
    'specks': np.random.default_rng(0).random(shape) < 0.5,
  }[kind]


@pytest.mark.parametrize('kind', ['all', 'none', 'stripe', 'ring', 'specks'])
@pytest.mark.parametrize('share', [1e-9, 0.07, 0.5, 1.0])
@pytest.mark.parametrize(('receptive_field', 'stride'), [(10, 1), (10, 4), (3, 5), (31, 1)])
def test_patches_inside_have_their_share_of_pixels_in_the_region(
  kind, share, receptive_field, stride
):
  region = region_of(kind, (31, 40))
  found = geometry.patches_inside(region, receptive_field, stride, share)
  # In whole numbers, as shares of a hundred are exact there.
  wanted = max(1, round(share * 100)) * receptive_field**2
  if share < 0.01:
    wanted = 1
  expected = [
    [
      100 * region[top : top + receptive_field, left : left + receptive_field].sum() >= wanted
      for left in patches_of(40, receptive_field, stride)
    ]
    for top in patches_of(31, receptive_field, stride)
  ]
  np.testing.assert_array_equal(found, expected)


def test_patches_inside_of_several_regions_are_those_of_each():
  regions = np.stack([region_of(kind, (31, 40)) for kind in ('stripe', 'ring', 'specks', 'all')])
  found = geometry.patches_inside(regions.reshape(2, 2, 31, 40), 8, 3, 0.5)
  for one, region in zip(found.reshape(4, *found.shape[2:]), regions, strict=True):
    np.testing.assert_array_equal(one, geometry.patches_inside(region, 8, 3, 0.5))
  fixed = geometry.patches_inside(np.broadcast_to(regions[1], (10**9, 31, 40)), 8, 3, 0.5)
  assert len(fixed) == 10**9
  np.testing.assert_array_equal(fixed[-1], found[0, 1])
