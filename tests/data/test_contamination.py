"""Defective test images that are moved among the normal ones."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import contamination
from patch_svdd_jax.errors import UserError
from tests.data.test_held_out import numbers_of, split_of


@pytest.fixture
def splits():
  """20 normal images; of 12 test images, numbered from 20, the last 8 are defective."""
  numbers = split_of(32)
  normal = dataclasses.replace(numbers, labels=np.zeros(32, bool)).take(np.arange(20))
  test = dataclasses.replace(numbers, labels=np.arange(32) >= 24).take(np.arange(20, 32))
  return normal, test


def which(split):
  """Their numbers, once all but the labels is known to belong together."""
  numbers = split.images[:, 0, 0, 0].astype(int)
  same = dataclasses.replace(split, labels=numbers % 5 == 0)
  assert numbers_of(same) == numbers.tolist()
  return numbers.tolist()


def test_none(splits):
  assert contamination.mix(*splits, 0.0) == splits


def test_spread_over_both(splits):
  normal, test = contamination.mix(*splits, 0.1)
  # The middles of both halves of 24 .. 31, behind those of 0 .. 19.
  assert which(normal) == [*range(6), 26, *range(6, 16), 30, *range(16, 20)]
  assert np.flatnonzero(normal.labels).tolist() == [6, 17]
  assert which(test) == [number for number in range(20, 32) if number not in (26, 30)]
  np.testing.assert_array_equal(test.labels, [False] * 4 + [True] * 6)


@pytest.mark.parametrize(('share', 'count'), [(0.01, 1), (0.12, 2), (0.13, 3), (0.35, 7)])
def test_how_many(splits, share, count):
  normal, test = contamination.mix(*splits, share)
  assert (len(normal), normal.labels.sum(), len(test)) == (20 + count, count, 12 - count)


@pytest.mark.parametrize(('overlap', 'tested'), [(False, 10), (True, 12)])
def test_only_what_is_trained_on_is_contaminated(splits, overlap, tested):
  settings = {'held_out': 0.1, 'normal_images': 10, 'light': 'kept'}
  settings |= {'contamination': 0.2, 'contamination_overlap': overlap}
  dataset = data.assemble('parts', *splits, ml_collections.ConfigDict(settings))
  assert (len(dataset.train), len(dataset.held_out), len(dataset.test)) == (12, 2, tested)
  assert (dataset.train.labels.sum(), dataset.held_out.labels.sum()) == (2, 0)


def test_none_is_left_to_test(splits):
  words = r'^config\.data\.contamination=0\.4 of 20 normal images takes 8 of the 8 defective'
  with pytest.raises(UserError, match=words):
    contamination.mix(*splits, 0.4)
