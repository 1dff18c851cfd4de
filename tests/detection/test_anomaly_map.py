"""Pixel maps against a loop over patches and pixels in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.detection import anomaly_map

# image size, receptive field, stride
GRIDS = [
  ((32, 48), 8, 4),
  ((37, 29), 8, 3),  # neither axis is divided: uncovered rows and columns
  ((23, 41), 16, 5),
  ((16, 30), 16, 16),  # one row of patches, 14 columns past the last
  ((26, 19), 4, 7),  # gaps between the patches
]


def coverage_mean(distances, image_size, receptive_field, stride):
  """Adds every patch to its pixels; a pixel of no patch takes the nearest pixel that has one."""
  total, count = np.zeros(image_size), np.zeros(image_size)
  for row, column in np.ndindex(distances.shape):
    square = np.s_[
      row * stride : row * stride + receptive_field,
      column * stride : column * stride + receptive_field,
    ]
    total[square] += distances[row, column]
    count[square] += 1
  covered = np.argwhere(count)
  mean = np.empty(image_size)
  for pixel in np.ndindex(image_size):
    nearest = covered[((covered - pixel) ** 2).sum(axis=1).argmin()]
    mean[pixel] = total[tuple(nearest)] / count[tuple(nearest)]
  return mean


def patch_distances(image_size, receptive_field, stride, batch=3):
  rows, columns = ((extent - receptive_field) // stride + 1 for extent in image_size)
  return np.random.default_rng(0).uniform(0.1, 2, (batch, rows, columns)).astype(np.float32)


@pytest.mark.parametrize(('image_size', 'receptive_field', 'stride'), GRIDS)
def test_spread_is_the_mean_over_covering_patches(image_size, receptive_field, stride):
  distances = patch_distances(image_size, receptive_field, stride)
  maps = anomaly_map.upsample(
    jnp.array(distances), image_size=image_size, receptive_field=receptive_field, stride=stride
  )
  assert maps.shape == (3, *image_size)
  for found, scores in zip(maps, distances.astype(np.float64), strict=True):
    expected = coverage_mean(scores, image_size, receptive_field, stride)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_uncovered_border_takes_the_nearest_covered_pixel():
  image_size, receptive_field, stride = GRIDS[1]
  distances = patch_distances(image_size, receptive_field, stride)
  maps = np.asarray(
    anomaly_map.upsample(
      jnp.array(distances), image_size=image_size, receptive_field=receptive_field, stride=stride
    )
  )
  # The last patches end at row 35 and column 29 of 37 x 29.
  np.testing.assert_array_equal(maps[:, 35:], np.repeat(maps[:, 34:35], 2, axis=1))
  np.testing.assert_allclose(maps[:, 36, 28], distances[:, -1, -1], rtol=1e-6)


@pytest.mark.parametrize(('image_size', 'receptive_field', 'stride'), GRIDS)
def test_constant_distances_give_a_constant_map(image_size, receptive_field, stride):
  distances = np.full_like(patch_distances(image_size, receptive_field, stride), 0.7)
  maps = anomaly_map.upsample(
    jnp.array(distances), image_size=image_size, receptive_field=receptive_field, stride=stride
  )
  np.testing.assert_allclose(maps, 0.7, rtol=1e-6)


def test_aggregate_is_sum_and_product():
  rng = np.random.default_rng(0)
  maps = {name: rng.uniform(0, 2, (2, 5, 7)).astype(np.float32) for name in ('k64', 'k32', 'k128')}
  found = anomaly_map.aggregate({name: jnp.array(values) for name, values in maps.items()})
  assert list(found) == ['k64', 'k32', 'k128', 'sum', 'product']
  exact = np.stack([values.astype(np.float64) for values in maps.values()])
  for name, values in maps.items():
    np.testing.assert_array_equal(found[name], values)
  np.testing.assert_allclose(found['sum'], exact[0] + exact[1] + exact[2], rtol=1e-6)
  np.testing.assert_allclose(found['product'], exact[0] * exact[1] * exact[2], rtol=1e-6)


@pytest.mark.parametrize('weights', [(0.5, 1.0, 2.0), (0, 1, 0.25)])
def test_scales_weigh_in_the_product(weights):
  rng = np.random.default_rng(0)
  maps = {name: rng.uniform(0, 2, (2, 5, 7)).astype(np.float32) for name in ('k64', 'k32', 'k128')}
  maps['k32'][0, 0, 0] = 0
  given = {name: jnp.array(values) for name, values in maps.items()}
  found = anomaly_map.aggregate(given, weights)
  powers = [
    values.astype(np.float64) ** w for values, w in zip(maps.values(), weights, strict=True)
  ]
  np.testing.assert_allclose(found['product'], np.prod(powers, axis=0), rtol=1e-5)
  for name, values in anomaly_map.aggregate(given).items():
    if name != 'product':
      np.testing.assert_array_equal(found[name], values)


def test_one_scale_stands_for_itself():
  only = jnp.ones((1, 2, 3))
  found = anomaly_map.aggregate({'k32': only})
  assert list(found) == ['k32']
  np.testing.assert_array_equal(found['k32'], only)


def test_image_score_is_the_largest_pixel():
  maps = np.random.default_rng(0).normal(size=(4, 6, 9)).astype(np.float32)
  maps[2] -= 10  # a score below zero
  expected = [max(image.ravel().tolist()) for image in maps]
  np.testing.assert_array_equal(anomaly_map.image_score(jnp.array(maps)), expected)
