"""Means, the choice of other sets, and rank correlations of invented figures, against numpy."""

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata

from benchmarks import recipe_statistics as statistics
from benchmarks import recipe_tables

SETS = ('screw', 'brick', 'tire')
ROWS = ('he/hidden', 'he/embedding', 'contrast/hidden', 'contrast/embedding')


def figures(rng):
  """Figures of four trained rows and one that is not, on three sets with two seeds."""
  return [
    {
      'set': category,
      'row': row,
      'seed': seed,
      'trained': row in ROWS,
      'criteria': {'guess': float(rng.normal())},
      **{name: float(rng.random()) for name in recipe_tables.FIGURES},
    }
    for category, row, seed in itertools.product(SETS, (*ROWS, 'untrained/hidden'), (0, 1))
  ]


def test_a_set_has_no_say_in_what_is_chosen_for_it():
  points = figures(np.random.default_rng(0))
  table = recipe_tables.chosen_on_others(points, SETS)
  # quality[row, set]
  quality = np.array(
    [
      [
        np.mean(
          [
            (point['image_auroc'] + point['aupro_5']) / 2
            for point in points
            if (point['row'], point['set']) == (row, category)
          ]
        )
        for category in SETS
      ]
      for row in ROWS
    ]
  )
  chosen = [line for line in table.rows if line['row'].startswith('chosen: ')]
  for place, (category, line) in enumerate(zip(SETS, chosen, strict=True)):
    on_others = np.delete(quality, place, axis=1).mean(axis=1)
    best = int(on_others.argmax())
    assert (line['set'], line['row']) == (category, f'chosen: {ROWS[best]}')
    assert line['others'] == pytest.approx(on_others[best])
    own = [p['pixel_auroc'] for p in points if (p['row'], p['set']) == (ROWS[best], category)]
    assert line['pixel_auroc'] == pytest.approx(np.mean(own))
  # Whatever a set's own figures are, its choice stays.
  for point in points:
    if point['set'] == 'screw':
      point |= {'image_auroc': 1 - point['image_auroc'], 'aupro_5': 1 - point['aupro_5']}
  changed = recipe_tables.chosen_on_others(points, SETS).rows
  assert changed[0]['row'] == chosen[0]['row']
  # Beside each stands what is untrained, and at the end the means over sets.
  assert [line['row'] for line in changed[1::2]] == ['untrained/hidden'] * 4
  means = [line['image_auroc'] for line in changed if line['row'].startswith('chosen: ')]
  assert changed[-2]['set'] == 'mean'
  assert changed[-2]['image_auroc'] == pytest.approx(np.mean(means))


def test_a_row_that_lacks_a_set_is_no_candidate():
  values = {'whole': {'a': 0.1, 'b': 0.1}, 'part': {'a': 0.9}, 'other': {'b': 0.9}}
  assert statistics.choose(values, ('a', 'b'), 'b') == ('whole', 0.1)
  assert statistics.choose({'part': {'a': 0.9}}, ('a', 'b'), 'b') is None
  assert statistics.choose({'part': {'a': 0.9}}, ('a',), 'a') is None


def test_rank_correlations_are_those_of_ranks_within_sets():
  points = figures(np.random.default_rng(1))
  for point in points:
    point['image_auroc'] = round(point['image_auroc'], 1)  # with ties

  def expected(category, scoring):
    pairs = np.array(
      [
        (point['criteria']['guess'], point['image_auroc'])
        for point in points
        if point['set'] == category and scoring in point['row']
      ]
    )
    return np.corrcoef(rankdata(pairs[:, 0]), rankdata(pairs[:, 1]))[0, 1]

  found = statistics.correlations(points, 'guess', 'image_auroc', same_scoring=False)
  assert found == pytest.approx({category: expected(category, '') for category in SETS})
  found = statistics.correlations(points, 'guess', 'image_auroc', same_scoring=True)
  assert found == pytest.approx(
    {
      category: np.mean([expected(category, f'/{each}') for each in ('hidden', 'embedding')])
      for category in SETS
    }
  )
  table = recipe_tables.rank_correlations(points, SETS)
  assert table.rows[1]['mean'] == pytest.approx(np.mean(list(found.values())))


def test_what_cannot_be_ranked_has_no_correlation():
  assert statistics.spearman([(0.0, 1.0), (1.0, 2.0)]) is None
  assert statistics.spearman([(0.0, 1.0), (0.0, 2.0), (0.0, 3.0)]) is None
  assert statistics.spearman([]) is None
  assert statistics.spearman([(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)]) == pytest.approx(-1)


def test_unknown_figures_leave_means_unknown():
  assert statistics.mean([0.5, None]) is None
  assert statistics.mean([]) is None
  assert statistics.mean_over_sets({'a': 0.5, 'b': 0.7}, ('a', 'b')) == pytest.approx(0.6)
  assert statistics.mean_over_sets({'a': 0.5}, ('a', 'b')) is None
