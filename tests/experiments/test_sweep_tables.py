"""What tables and CSV show of a sweep."""

import csv
import io

import pytest

from patch_svdd_jax.experiments import sweep_tables
from tests.experiments.test_sweep_statistics import GROUPS


def test_tables():
  image, pixel, accuracy, cost = sweep_tables.tables(GROUPS)
  assert image[1] == ['setting', 'seeds', 'k32', 'product']
  assert image[2] == [
    ['depth=3, untrained', '1', '0.500', '0.550'],
    ['depth=3, lambda 0, rate 0.001', '1 (1 lost)', '0.600', '0.700'],
    ['depth=3, lambda 0.1, rate 0.001', '3', '0.800 ± 0.248', '0.900 ± 0.248'],
    ['depth=3, lambda 10, rate 0.001', '0 (1 lost)', '-', '-'],
  ]
  assert pixel[2][2] == ['depth=3, lambda 0.1, rate 0.001', '3', '0.800 ± 0.000', '-']
  assert accuracy[1] == ['setting', 'seeds', 'k32', 'k8']
  assert accuracy[2][1] == [
    'depth=3, lambda 0.1, rate 0.001',
    '3',
    '0.400 ± 0.248',
    '0.125 ± 0.000',
  ]
  assert cost[2] == [
    ['depth=3, lambda 0, rate 0.001', '1,234', '0.056', '100', '9'],
    ['depth=3, lambda 0.1, rate 0.001', '1,234', '0.056', '1.1e+03', '9'],
    ['depth=3, lambda 10, rate 0.001', '1,234', '0.056', '-', '-'],
  ]


def test_a_failed_group_is_a_row():
  failed = {'varied': {}, 'members': {}, 'error': 'no bank fits'}
  *_, last = sweep_tables.tables(GROUPS | {'depth=99': failed})
  assert last[1:] == (['group', 'error'], [['depth=99', 'no bank fits']])


def test_one_line_of_csv_for_each_figure():
  lines = list(csv.DictReader(io.StringIO(sweep_tables.to_csv(GROUPS))))
  found = {(line['svdd_weight'], line['what'], line['metric']): line for line in lines}
  assert len(found) == len(lines)
  line = found['0.1', 'k32', 'image_auroc']
  assert float(line['mean']) == pytest.approx(0.8)
  assert float(line['half_width']) == pytest.approx(4.302653 * 0.1 / 3**0.5)
  assert (line['group'], line['seeds']) == ('depth=3', '3')
  assert found['0.0', 'product', 'pixel_auroc']['mean'] == ''
