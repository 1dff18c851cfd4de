"""Scores of batches, joined."""

import numpy as np
import pytest

from patch_svdd_jax.detection.scores import Scores, in_batches

IMAGES = np.random.default_rng(0).integers(1, 256, (5, 4, 6, 3), np.uint8)


def make_score():
  """What scores an image by its grey levels; of its batches it needs 9, 1, 3, ... seconds."""
  seconds = iter((9.0, 1.0, 3.0))

  def score(images, regions):
    assert len(images) == 2
    assert regions is None
    maps = images.mean(axis=-1, dtype=np.float32)
    top = maps.max(axis=(1, 2))
    return Scores(
      {'product': maps, 'k8': -maps},
      {'product': top, 'k8': -top},
      {'k8': maps[:, :2, :2]},
      {'k8': float(images[-1].any())},
      {'embed': next(seconds)},
      {'embedding norm k8': top + 1},
    )

  return score


def test_batches_are_joined_without_their_padding():
  found = in_batches(make_score(), IMAGES, 2, iter)
  maps = IMAGES.mean(axis=-1, dtype=np.float32)
  np.testing.assert_array_equal(found.maps['product'], maps)
  np.testing.assert_array_equal(found.images['k8'], -maps.max(axis=(1, 2)))
  np.testing.assert_array_equal(found.distances['k8'], maps[:, :2, :2])
  np.testing.assert_array_equal(found.norms['embedding norm k8'], maps.max(axis=(1, 2)) + 1)
  assert found.fallback_fraction == {'k8': pytest.approx(2 / 3)}


def test_the_batch_that_compiles_is_not_timed_unless_it_is_the_only_one():
  assert in_batches(make_score(), IMAGES, 2, iter).seconds == {'embed': 2}
  assert in_batches(make_score(), IMAGES[:2], 2, iter).seconds == {'embed': 9}


def test_the_main_map_is_the_product_in_any_order():
  found = in_batches(make_score(), IMAGES, 2, iter)
  assert found.main_map == 'product'
  main = found.of_main_map()
  assert (list(main.maps), list(main.images), main.main_map) == (
    ['product'],
    ['product'],
    'product',
  )
  assert Scores({}, {'k8': np.zeros(1)}, {}, {}, {}).main_map == 'k8'
