"""What the benchmark of metrics computes, prints and writes, on small maps."""

import json
import math

import numpy as np
import pytest

from benchmarks import metrics as benchmark
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metrics


@pytest.fixture(scope='module')
def given():
  return benchmark.make_maps(8, size=32)


def test_maps_have_defects_that_score_higher(given):
  masks, maps = given
  assert masks.any((1, 2)).tolist() == [number % 4 > 0 for number in range(8)]
  assert maps[masks].mean() > maps[~masks].mean() + 1
  np.testing.assert_array_equal(benchmark.make_maps(8, size=32).maps, maps)


def test_rows_are_of_all_metrics_in_turn(given):
  rows = {row['name']: row for row in benchmark.measure_metrics(given, [0, 1])}
  assert list(rows) == list(benchmark.METRICS)
  assert rows['AUROC']['value'] == pytest.approx(rows[benchmark.PEER]['value'], rel=1e-12)
  assert rows['AP']['value'] == pytest.approx(rows['scikit-learn AP']['value'], rel=1e-12)
  labels = given.masks.any((1, 2))
  expected = metrics.evaluate(
    labels, ['', *['hole'] * 7], given.masks, labels | True, labels, given.maps
  ).overall
  for name, metric in [('mIoU', 'pixel_miou_max'), ('AUPIMO', 'aupimo'), ('all', 'aupro_30')]:
    assert rows[name]['value'] == pytest.approx(expected[metric], rel=1e-12)
  assert all(row['seconds'] > 0 for row in rows.values())
  assert rows[benchmark.PEER]['ratio'] == 1


def test_the_loop_is_the_area_where_its_thresholds_are_all_scores(given):
  masks = given.masks
  maps = np.round(2 * given.maps).astype(np.float32)
  scores = np.unique(maps)[::-1]
  expected = benchmark.aupro(benchmark.Maps(masks, maps))
  found = benchmark.looped_aupro(benchmark.Maps(masks, maps), scores)
  assert found == pytest.approx(expected, rel=1e-12)


def test_the_loop_may_be_timed_on_some_of_its_thresholds(given):
  ours, loop = benchmark.measure_aupro(given, 100, 100, [0])
  assert loop['value'] == pytest.approx(ours['value'], abs=0.02)
  assert loop['ratio'] == pytest.approx(loop['seconds'] / ours['seconds'])
  _, part = benchmark.measure_aupro(given, 100, 2, [0])
  assert part['name'] == 'loop over thresholds, 100, 2 timed'
  assert math.isnan(part['value'])


def test_what_should_be_equal_must_be():
  benchmark.check('a', 0.5, 'b', 0.5, 0)
  for wrong in (0.6, math.nan):
    with pytest.raises(UserError, match=r'^a is .* where b is 0\.5$'):
      benchmark.check('a', wrong, 'b', 0.5, 0.01)


def test_prints_and_writes(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(benchmark, 'SIZE', 16)
  monkeypatch.setattr(benchmark.make_maps, '__defaults__', (16,))
  path, plot = tmp_path / 'metrics.json', tmp_path / 'metrics.png'
  options = ['--images', '8', '--rounds', '1', '--json', str(path), '--plot', str(plot)]
  assert benchmark.main(options) == 0
  assert '8 maps of 16 x 16, 2,048 pixels' in capsys.readouterr().out
  assert [row['name'] for row in json.loads(path.read_text())] == list(benchmark.METRICS)
  assert plot.stat().st_size
  assert benchmark.main(['--aupro', '--images', '4', '--rounds', '1', '--thresholds', '50']) == 0
  assert '| loop over thresholds, 50 |' in capsys.readouterr().out
