"""Light in jax against numpy's; the rest of the function is measured as it is exported."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.data import lighting
from patch_svdd_jax.detection import exported_score


def photographs(seed, count, size, mean, contrast):
  values = np.random.default_rng(seed).normal(mean, contrast, (count, *size, 3))
  return lighting.to_grey_levels(values)


@pytest.mark.parametrize(
  ('mean', 'contrast'), [(128, 40), (20, 9), (240, 30), (100, 1), (127.5, 6), (0, 0), (255, 0)]
)
def test_light_is_that_of_numpy(mean, contrast):
  images = photographs(0, 8, (64, 50), mean, contrast)
  found = jax.jit(exported_score.standardise_light)(images)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, lighting.standardise(images))


def test_light_of_many_images():
  """Where the sums are rounded otherwise, a half may be: by a grey level, of few images."""
  images = np.concatenate([photographs(i, 10, (20, 30), 40 + 10 * i, 5 + 3 * i) for i in range(15)])
  difference = np.asarray(
    jax.jit(exported_score.standardise_light)(images), int
  ) - lighting.standardise(images)
  assert np.abs(difference).max() <= 1
  assert (difference != 0).any(axis=(1, 2, 3)).mean() <= 0.02
