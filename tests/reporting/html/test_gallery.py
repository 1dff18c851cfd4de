"""Which images are shown, in what order and in what groups."""

import itertools

import numpy as np
import pytest

from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.reporting.html import Item, gallery


def make(name, score, anomalous=None, alarm=None):
  defect = {None: '', False: 'good', True: 'hole'}[anomalous]
  return Item(name, score, alarm=alarm, views=list, anomalous=anomalous, defect=defect)


ITEMS = [
  make('a', 0.1, False, False),
  make('b', 0.2, True, False),  # missed
  make('c', 0.9, True, True),
  make('d', 0.8, True, True),
  make('e', 0.6, False, True),  # false alarm
  make('f', 0.8, True, True),
]


def names(items):
  return ''.join(item.name for item in items)


def test_the_highest_scores_come_first_then_names():
  assert names(gallery.select(ITEMS)) == 'cdfeba'


def test_where_some_are_left_out_errors_are_not():
  assert names(gallery.select(ITEMS, 4)) == 'cdeb'
  assert names(gallery.select(ITEMS, 2)) == 'eb'
  assert names(gallery.select(ITEMS, 1)) == 'e'


def test_without_labels_the_highest_scores_stay():
  items = [make(item.name, item.score, alarm=item.alarm) for item in ITEMS]
  assert names(gallery.select(items, 3)) == 'cdf'


def test_errors_need_truth_and_verdict():
  expected = {(True, False): 'missed', (False, True): 'false alarm'}
  for known in itertools.product((None, False, True), repeat=2):
    assert make('', 0, *known).error == expected.get(known, '')


def test_choices():
  assert gallery.types(ITEMS) == [('good', 2), ('hole', 4)]
  assert gallery.verdicts(ITEMS) == [('alarm', 4), ('pass', 2), ('missed', 1), ('false alarm', 1)]
  untold = [make('a', 1, alarm=True)]
  assert gallery.types(untold) == []
  assert gallery.verdicts(untold) == [('alarm', 1), ('pass', 0)]
  assert gallery.verdicts([make('a', 1, True)]) == []


SCORES = {'normal': np.array([0.1, 0.6]), 'anomalous': np.array([0.2, 0.9, 0.8, 0.5])}


def test_what_is_above_the_threshold_is_an_alarm():
  threshold = Threshold(0.5, 0.01, ensured=True)
  assert gallery.tally(SCORES, threshold) == [('normal', 1, 2), ('anomalous', 2, 4)]


def test_histograms_share_their_bins_and_count_all_finite_scores():
  rng = np.random.default_rng(0)
  normal, anomalous = rng.random(50), rng.random(30) + 1
  scores = {'normal': normal, 'anomalous': np.append(anomalous, [np.inf, -np.inf])}
  axes = gallery.score_chart(scores, None).axes
  _, labels = axes.get_legend_handles_labels()
  assert labels == ['normal (50)', 'anomalous (30)']
  for patch, members in zip(axes.patches, (normal, anomalous), strict=True):
    corners = patch.get_xy()
    edges = np.unique(corners[:, 0])
    np.testing.assert_allclose(edges[[0, -1]], (normal.min(), anomalous.max()))
    assert 10 <= len(edges) - 1 <= 40
    counts, _ = np.histogram(members, edges)
    tops = [corners[(corners[:, 0] == edge), 1].max() for edge in edges]
    np.testing.assert_array_equal(tops, np.maximum(np.append(counts, 0), np.append(0, counts)))


@pytest.mark.parametrize('values', [[], [0.5], [0.5, 0.5], [np.inf]])
def test_histograms_of_hardly_any_values_can_be_drawn(values):
  chart = gallery.score_chart({'images': np.array(values, float)}, None)
  _, labels = chart.axes.get_legend_handles_labels()
  assert labels == [f'images ({np.isfinite(values).sum()})']
  assert chart.uri


def test_the_threshold_lies_in_the_chart_of_scores():
  axes = gallery.score_chart(SCORES, Threshold(5.0, 0.01, ensured=True)).axes
  _, labels = axes.get_legend_handles_labels()
  assert labels == ['normal (2)', 'anomalous (4)', 'threshold 5']
  [rule] = axes.lines
  assert list(rule.get_xdata()) == [5, 5]
  low, high = axes.get_xlim()
  assert low < 0.1
  assert high > 5
  assert not gallery.score_chart(SCORES, None).axes.lines
