"""Which images are shown, in what order and in what groups."""

import itertools

import numpy as np

from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.reporting.html import Item, gallery


def make(name, score, anomalous=None, alarm=None):
  defect = {None: '', False: 'good', True: 'hole'}[anomalous]
  return Item(name, score, list, anomalous, defect, alarm=alarm)


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


def test_the_threshold_lies_in_the_chart_of_scores():
  chart = gallery.score_chart(SCORES, Threshold(5.0, 0.01, ensured=True))
  counts = {bars.label: bars.counts.sum() for bars in chart.bars}
  assert counts == {'normal': 2, 'anomalous': 4}
  assert chart.x_limits.low < 0.1
  assert chart.x_limits.high > 5
  [rule] = chart.rules
  assert rule.value == 5
  assert gallery.score_chart(SCORES, None).rules == []
