"""Baselines look at regions of interest alone."""

import functools

import numpy as np
import pytest

from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.errors import UserError
from tests.baselines.test_pixel_boundary import IMAGES, QUERIES, SIZE, tiny_config
from tests.support import small_deep_svdd

REGION = np.zeros(SIZE, bool)
REGION[:12, 3:25] = True

SYSTEMS = {
  'ocsvm_image': functools.partial(PixelBoundary.fit, 'ocsvm_image'),
  'svdd_patch': functools.partial(PixelBoundary.fit, 'svdd_patch'),
  'raw_patch': RawPatches.fit,
  'deep_svdd': DeepSvdd.fit,
}


def regions_of(images):
  return np.broadcast_to(REGION, images.shape[:3])


@pytest.mark.parametrize('name', SYSTEMS)
def test_what_lies_outside_changes_nothing(name):
  config = tiny_config()
  config.data.region_share = 1.0
  config.baseline.steps = 4

  def scores(change):
    train, queries = change(IMAGES), change(QUERIES)
    with small_deep_svdd.small():
      system = SYSTEMS[name](config, train, regions=regions_of(train))
      return system.score(queries, regions=regions_of(queries))

  def paint(images):
    painted = images.copy()
    painted[:, ~REGION] = np.random.default_rng(7).integers(0, 256, painted[:, ~REGION].shape)
    return painted

  plain, painted = scores(lambda images: images), scores(paint)
  ((key, maps),) = plain.maps.items()
  np.testing.assert_array_equal(painted.maps[key], maps)
  np.testing.assert_array_equal(painted.images[key], plain.images[key])
  assert (maps[:, ~REGION] == 0).all()
  np.testing.assert_array_equal(plain.images[key], maps[:, REGION].max(axis=1))


def test_a_region_without_a_patch_is_refused():
  with pytest.raises(UserError, match='no patch of 8 pixels lies in the region'):
    RawPatches.fit(tiny_config(), IMAGES, regions=np.zeros(IMAGES.shape[:3], bool))
