"""Which rows of a bank are outlying, against brute force in float64."""

import numpy as np
import pytest

from patch_svdd_jax.detection import bank_building, outliers
from patch_svdd_jax.search import memory_bank
from tests.support.runs import tiny_config

IMAGES, PATCHES, DIM = 23, 6, 8


@pytest.fixture(scope='module')
def rows():
  """Of each image alike; image 7 has two patches unlike all others, image 15 one."""
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(IMAGES, 1, DIM)) * 0.1 + rng.normal(size=(IMAGES, PATCHES, DIM))
  rows[7, 2:4] += 20
  rows[15, 5] -= 20
  return rows.astype(np.float32)


def on_host(part, screen):
  return memory_bank.on_host(part, 64, screen=screen)


def brute_force(rows):
  """Runs of 3, 2, 2, 3, ... images; as many others as there are beside the longest run."""
  fold_of = np.arange(IMAGES) * outliers.FOLDS // IMAGES
  expected = np.empty((IMAGES, PATCHES))
  for image in range(IMAGES):
    others = np.flatnonzero(fold_of != fold_of[image])
    if len(others) > 20:
      # One too many: which one is left out follows from the middles of 20 equal runs.
      others = others[[(2 * i + 1) * len(others) // 40 for i in range(20)]]
    bank = rows[others].reshape(-1, DIM).astype(np.float64)
    differences = rows[image].astype(np.float64)[:, None] - bank[None]
    expected[image] = np.sqrt(np.square(differences).sum(axis=-1)).min(axis=1)
  return expected


@pytest.mark.parametrize('place', [bank_building.place, on_host])
def test_distances_to_the_images_of_other_folds(rows, place):
  found = outliers.outlyingness(rows, place)
  np.testing.assert_allclose(found, brute_force(rows), rtol=1e-6)


def test_patches_of_the_image_and_of_its_neighbours_do_not_count(rows):
  """The same defect in images that were taken one after another is as outlying as one alone."""
  twice = rows.copy()
  twice[8] = twice[7]  # of one run
  found = outliers.outlyingness(twice, bank_building.place)
  assert found[7:9, 2:4].min() > 10
  assert np.sort(found.ravel())[-6] < 10


def inliers(rows, share):
  """Of images that all have as many rows, f32[N, P, D], bool[N, P]."""
  count, patches, dim = rows.shape
  counts = np.full(count, patches)
  found = outliers.inliers(rows.reshape(-1, dim), counts, share, bank_building.place)
  return found.reshape(count, patches)


def test_the_farthest_are_dropped(rows):
  kept = inliers(rows, 3 / (IMAGES * PATCHES))
  assert np.argwhere(~kept).tolist() == [[7, 2], [7, 3], [15, 5]]


@pytest.mark.parametrize(('share', 'count'), [(0.0, 0), (0.1, 14), (0.5, 69)])
def test_how_many_are_dropped(rows, share, count):
  assert (~inliers(rows, share)).sum() == count


def test_a_single_image_has_nothing_to_be_compared_with(rows):
  assert inliers(rows[:1], 0.5).all()


def test_images_of_more_and_of_fewer_rows(rows):
  """As if the last rows of an image were not there, in its own bank and in those of others."""
  counts = np.array([PATCHES - image % 3 for image in range(IMAGES)])
  counts[3] = 0
  there = np.arange(PATCHES) < counts[:, None]
  found = outliers.inliers(rows[there], counts, 0.1, bank_building.place)
  # Beyond all others' reach: what is not there is nobody's nearest.
  seen = counts > 0
  far = np.where(there[..., None], rows, 1e3 + 10 * np.arange(IMAGES)[:, None, None])[seen]
  outlying = outliers.outlyingness(far.astype(np.float32), bank_building.place)[there[seen]]
  dropped = round(0.1 * len(outlying))
  assert (~found).sum() == dropped
  assert outlying[~found].min() >= np.sort(outlying)[-dropped]


def test_what_is_dropped_does_not_reach_the_coreset_and_is_told_by_image(rows):
  config = tiny_config()
  config.score.update(outliers=3 / (IMAGES * PATCHES), coreset=0.5)
  reduced = bank_building.reduce_rows(rows.reshape(-1, DIM), IMAGES, config, iter)
  assert reduced.rows.shape == (68, DIM)
  assert np.abs(reduced.rows).max() < 10
  expected = np.zeros(IMAGES)
  expected[[7, 15]] = 2 / 6, 1 / 6
  # Of two scales, of which the other one drops nothing.
  both = [reduced.inliers, np.ones(IMAGES * 2 * PATCHES, bool)]
  counts = [np.full(IMAGES, PATCHES), np.full(IMAGES, 2 * PATCHES)]
  np.testing.assert_allclose(bank_building.dropped_shares(both, counts), expected / 3)
  assert memory_bank.to_rows(bank_building.place(reduced.rows)).shape == (68, DIM)
