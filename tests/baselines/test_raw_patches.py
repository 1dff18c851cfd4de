"""The nearest raw patch against brute force in float64."""

import numpy as np
import pytest

from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.configs import default
from patch_svdd_jax.models import geometry

SIZE, K, STRIDE = (14, 17), 4, 3
IMAGES = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)
QUERIES = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


def rows_of(images):
  return np.array(
    [
      image[top : top + K, left : left + K].ravel() / 255
      for image in images
      for top in range(0, SIZE[0] - K + 1, STRIDE)
      for left in range(0, SIZE[1] - K + 1, STRIDE)
    ]
  )


@pytest.fixture(scope='module')
def config():
  config = default.get_config()
  config.encoder.receptive_field = K
  config.score.batch_size = 2
  config.baseline.update(components=K * K * 3, stride=STRIDE)
  return config


def nearest(queries, rows):
  return np.sqrt(((queries[:, None] - rows[None]) ** 2).sum(-1)).min(1)


def test_all_components_give_the_distances_of_pixels(config, tmp_path):
  system = RawPatches.fit(config, IMAGES)
  grid = geometry.grid_shape(SIZE, K, STRIDE)
  expected = nearest(rows_of(QUERIES), rows_of(IMAGES)).reshape(3, *grid)
  system.save(tmp_path)
  for each in (system, RawPatches.load(tmp_path)):
    scores = each.score(QUERIES)
    np.testing.assert_allclose(scores.distances['k4'], expected, rtol=1e-5)
    weights = [geometry.coverage_weights(extent, K, STRIDE) for extent in SIZE]
    maps = np.einsum('hr,brc,wc->bhw', weights[0], expected, weights[1])
    np.testing.assert_allclose(scores.maps['k4'], maps, rtol=1e-5)
    np.testing.assert_array_equal(scores.images['k4'], scores.maps['k4'].max(axis=(1, 2)))
  # What it has seen is normal.
  np.testing.assert_allclose(system.score(IMAGES[:2]).maps['k4'], 0, atol=1e-5)


def test_fewer_components_give_those_of_the_projections(config):
  few = config.copy_and_resolve_references()
  few.baseline.components = 5
  rows, queries = rows_of(IMAGES), rows_of(QUERIES)
  axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:5]
  found = RawPatches.fit(few, IMAGES).score(QUERIES).distances['k4']
  expected = nearest(queries @ axes.T, rows @ axes.T)
  np.testing.assert_allclose(found.ravel(), expected, rtol=1e-3, atol=1e-3)
