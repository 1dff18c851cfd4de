"""The figures of the benchmark, by hand, and its contenders against float64."""

import dataclasses
import json
import re

import numpy as np
import pytest

from patch_svdd_jax.benchmarks import nearest, timing
from patch_svdd_jax.benchmarks.hardware import Product
from patch_svdd_jax.benchmarks.peers import Peer
from patch_svdd_jax.errors import UserError

pytestmark = pytest.mark.usefixtures('quick_compilation')


def vectors(queries, rows, dim=16, seed=0):
  rng = np.random.default_rng(seed)
  return tuple(rng.standard_normal((n, dim), dtype=np.float32) for n in (queries, rows))


def brute_force(queries, rows, k):
  """Distances f64[Q, k]."""
  differences = queries[:, None].astype(np.float64) - rows[None]
  return np.sort(np.sqrt((differences**2).sum(-1)), axis=1)[:, :k]


@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize('rows', [5, 1024, 2500])
def test_the_plain_scan_finds_the_nearest_rows(rows, k):
  queries, rows = vectors(30, rows)
  found = nearest.prepare_plain_scan(rows, k)(queries)
  np.testing.assert_allclose(found, brute_force(queries, rows, k), rtol=1e-5)


@pytest.mark.parametrize('k', [1, 4])
def test_the_reference_is_that_of_differences(monkeypatch, k):
  monkeypatch.setattr(nearest, 'REFERENCE_BLOCK', 100)
  queries, rows = vectors(7, 250)
  rows[:] = 0.95 + 4e-4 * rows
  queries[:] = 0.95 + 4e-4 * queries
  np.testing.assert_allclose(
    nearest.reference(queries, rows, k), brute_force(queries, rows, k), rtol=1e-12
  )


def test_ours_must_be_right_to_float32_and_the_others_as_their_form_allows():
  queries, rows = vectors(40, 300)
  right = brute_force(queries, rows, 2)
  for name in (nearest.OURS, 'other'):
    nearest.check(name, right.astype(np.float32), queries, rows)
  rounded = (right * (1 + 1e-5)).astype(np.float32)
  nearest.check('other', rounded, queries, rows)
  wrong = re.escape(f'finds the distance {rounded[0, 0]:.9g} for query 0 where float64 finds ')
  with pytest.raises(UserError, match=f'^{nearest.OURS} {wrong}.*: nothing was timed$'):
    nearest.check(nearest.OURS, rounded, queries, rows)


@pytest.mark.parametrize('name', [nearest.OURS, nearest.PLAIN])
@pytest.mark.parametrize('value', [1.01, np.nan, np.inf])
def test_a_wrong_distance_is_found(name, value):
  queries, rows = vectors(40, 300)
  found = brute_force(queries, rows, 2)
  found[-1, 1] *= value
  with pytest.raises(UserError, match='for query 39 '):
    nearest.check(name, found, queries, rows)


def test_a_search_that_takes_long_is_timed_on_fewer_queries():
  assert nearest.affordable(3000, nearest.LONGEST) == 3000
  assert nearest.affordable(3000, 3 * nearest.LONGEST) == 1000
  assert nearest.affordable(3000, 1e9) == 1


def exact_peer(proportional=True):
  return Peer(
    'exact', 'exact', lambda rows, k: lambda q: brute_force(q, rows, k), lambda: 1, proportional
  )


SETTINGS = {'k': 2, 'products': {'f32': Product(lambda: None, 6e9)}, 'rounds': 3}


def test_figures_by_hand(monkeypatch):
  """Seconds are given; the slow peer is timed on 10 of 40 queries."""
  queries, rows = vectors(40, 500)
  monkeypatch.setattr(
    nearest, 'affordable', lambda count, _: {True: 10, False: count}[count == len(queries)]
  )
  given = {
    nearest.OURS: [1.0, 2.0, 9.0],
    nearest.PLAIN: [3.0, 2.0, 36.0],
    'slow': [1.0, 4.0, 9.0],
    'steady': [2.0, 2.0, 2.0],
    'f32': [1.0, 3.0, 6.0],
  }
  asked = {}

  def interleave(calls, rounds):
    assert list(rounds) == [0, 1, 2]
    assert list(calls) == list(given)
    asked.update({name: calls[name]().shape for name in ('slow', 'steady', nearest.PLAIN)})
    return {name: np.array(seconds) for name, seconds in given.items()}

  monkeypatch.setattr(timing, 'interleave', interleave)
  titles = []

  def progress(title):
    titles.append(title)
    return iter

  row = nearest.measure_search(
    'some',
    queries,
    rows,
    peers={'slow': exact_peer(), 'steady': exact_peer(proportional=False)},
    progress=progress,
    **SETTINGS,
  )
  assert titles == ['some, 500 rows: check', 'some, 500 rows']
  assert asked == {'slow': (10, 2), 'steady': (40, 2), nearest.PLAIN: (40, 2)}
  gflop = 2 * 40 * 500 * 16 / 1e9
  assert (row.data, row.queries, row.bank, row.dim, row.k) == ('some', 40, 500, 16, 2)
  assert row.gflops == row.gflops_of(nearest.OURS) == pytest.approx(gflop / 2)
  assert row.gflops_of('slow') == pytest.approx(gflop / 16)
  assert row.ratio == pytest.approx({nearest.PLAIN: 3.0, 'slow': 4.0, 'steady': 1.0})
  assert row.seconds == {nearest.OURS: 2.0, nearest.PLAIN: 3.0, 'slow': 16.0, 'steady': 2.0}
  assert row.timed_queries == {nearest.OURS: 40, nearest.PLAIN: 40, 'slow': 10, 'steady': 40}
  assert row.peak_gflops == pytest.approx({'f32': 2.0})
  # Of each round's own peak: 1/6, 1/4 and 1/9 of the gflop.
  assert row.peak_share == pytest.approx({'f32': gflop / 6})
  assert 0 <= row.fallback_fraction <= 1
  json.dumps(dataclasses.asdict(row))


def test_contenders_that_disagree_are_not_timed(monkeypatch):
  queries, rows = vectors(30, 700)
  wrong = exact_peer()._replace(prepare=lambda rows, k: lambda q: 1.1 * brute_force(q, rows, k))
  monkeypatch.setattr(timing, 'interleave', None)
  with pytest.raises(UserError, match=r'^wrong finds the distance'):
    nearest.measure_search(
      'some', queries, rows, peers={'wrong': wrong}, progress=lambda _: iter, **SETTINGS
    )
