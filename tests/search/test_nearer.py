"""Rows that come later: banks with room for them, and queries that they are nearer to."""

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import memory_bank, nearer, nearest

DIM = 16


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def brute_force(queries, rows):
  """Distances to the nearest rows in float64, f64[Q]."""
  difference = queries.astype(np.float64)[:, None] - rows[None]
  return np.sqrt(np.square(difference).sum(axis=2)).min(axis=1)


ROWS, QUERIES = normal(0, 900, DIM), normal(1, 70, DIM)


@pytest.fixture(scope='module')
def bank():
  return memory_bank.from_rows(ROWS[:600])


def test_rows_are_appended_without_another_program(bank):
  grown = memory_bank.append(bank, ROWS[600:640])
  layout, compiled = grown.layout, None
  for last in range(640, 800, 40):
    assert (grown.size, grown.layout) == (last, layout)
    np.testing.assert_array_equal(memory_bank.to_rows(grown), ROWS[:last])
    found = nearest.search(QUERIES, grown, 2)
    expected = nearest.search(QUERIES, memory_bank.from_rows(ROWS[:last]), 2)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.indices, expected.indices)
    fewer = nearest.search(QUERIES, memory_bank.first(grown, 123), 2)
    np.testing.assert_allclose(fewer.distances[:, 0], brute_force(QUERIES, ROWS[:123]), rtol=1e-7)
    sizes = compiled_programs()
    grown = memory_bank.append(grown, ROWS[last : last + 40])
    if compiled:
      assert compiled_programs()[0] == compiled[0]
    compiled = sizes
  assert bank.size == 600


def compiled_programs():
  return [each._cache_size() for each in (memory_bank._write, nearest.search_on_devices)]


def test_a_bank_grows_where_there_is_no_more_room(bank):
  grown = memory_bank.append(bank, ROWS[600:610])
  room = grown.layout.size
  assert room == memory_bank.room_for(610 + 4 * 10)
  grown = memory_bank.append(grown, ROWS[610:900])
  assert grown.layout.size == memory_bank.room_for(900 + 4 * 290) > room
  np.testing.assert_array_equal(memory_bank.to_rows(grown), ROWS)
  with pytest.raises(UserError, match='NaN or an infinity'):
    memory_bank.append(grown, np.full((1, DIM), np.nan, np.float32))


@pytest.mark.parametrize('size', [1, 2, 5, 100, 1000, 1025, 10**6])
def test_sizes_are_few_and_little_larger_than_needed(size):
  room = memory_bank.room_for(size)
  assert size <= room <= max(size + 1, 1.25 * size)
  assert memory_bank.room_for(room) == room


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0, 2.0])
def test_the_least_distance_to_old_and_new_rows(bank, share, monkeypatch):
  monkeypatch.setattr(nearer, 'SCREENED', 32)
  monkeypatch.setattr(nearer, 'SEARCHED', 8)
  new = memory_bank.from_rows(ROWS[600:700], screen=bank.screen)
  before = np.asarray(share * brute_force(QUERIES, ROWS[600:700]), np.float32)
  expected = np.minimum(before, nearest.search(QUERIES, new).distances[:, 0])
  np.testing.assert_array_equal(nearer.least(QUERIES, before, new), expected)


def test_few_queries_are_searched_for(bank, monkeypatch):
  searched = []
  search = nearest.search
  monkeypatch.setattr(
    nearest,
    'search',
    lambda queries, *rest: searched.append(len(queries)) or search(queries, *rest),
  )
  new = memory_bank.from_rows(ROWS[600:], screen=bank.screen)
  nearer.least(ROWS[:600], np.full(600, 1e-3, np.float32), new)
  assert not searched
