"""The page of an evaluation: its figures are the evaluation's, its curves have their areas."""

import dataclasses

import numpy as np
import pytest

from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.reporting.html import aupimo_section, evaluated, measured_curves
from patch_svdd_jax.reporting.html.evaluated import ReportContext


def test_items_know_the_truth_and_the_verdict(page, split, evaluation, found):
  scores = evaluation.scores.images['product']
  for i, item in enumerate(page.items):
    assert (item.name, item.score, item.defect) == (split.names[i], scores[i], split.defects[i])
    assert (item.anomalous, item.alarm) == (split.labels[i], scores[i] > 0.4)
    assert (item.p_value, item.regions) == (found.p_values[i], found.regions[i])
    assert (item.size, item.warnings) == ((48, 64), found.warnings[i])
  errors = {item.name: item.error for item in page.items if item.error}
  assert errors == {'test/good/002.png': 'false alarm', 'test/hole/10.png': 'missed'}
  assert {kind: len(scores) for kind, scores in page.scores.items()} == {
    'normal': 4,
    'anomalous': 7,
  }


def test_truth_is_a_mask_or_a_word(split):
  assert [evaluated.truth(split, i) for i in (0, 10)] == ['normal', 'no mask']
  np.testing.assert_array_equal(evaluated.truth(split, 5), split.masks[5])


def test_figures_stand_beside_what_they_are_compared_with(page, evaluation, other):
  headline = page.headlines[0]
  assert headline.metric == 'image_auroc'
  assert headline.value == evaluation.maps['product']['image_auroc']
  value = other.maps['product']['image_auroc']
  assert headline.others == [('random encoder', value), ('thumbnail', value)]
  of_maps, of_types = page.tables
  for text in ('Random encoder: untrained', 'scored as the trained one', 'Thumbnail: patches'):
    assert text in of_maps.note
  assert [(row.name, row.figures, row.compared) for row in of_maps.rows] == [
    ('k64', evaluation.maps['k64'], False),
    ('product', evaluation.maps['product'], False),
    ('random encoder k64', other.maps['k64'], True),
    ('random encoder product', other.maps['product'], True),
    ('thumbnail k64', other.maps['k64'], True),
    ('thumbnail product', other.maps['product'], True),
  ]
  assert [(row.name, row.figures) for row in of_types.rows] == [
    ('hole', evaluation.per_defect['product']['hole']),
    ('thread', evaluation.per_defect['product']['thread']),
    ('random encoder hole', other.per_defect['product']['hole']),
    ('random encoder thread', other.per_defect['product']['thread']),
    ('thumbnail hole', other.per_defect['product']['hole']),
    ('thumbnail thread', other.per_defect['product']['thread']),
  ]


def test_curves_have_the_areas_that_their_legends_name(page, evaluation, other):
  areas = {
    'image-roc': 'image_auroc',
    'image-precision-recall': 'image_ap',
    'pixel-roc': 'pixel_auroc',
    'pro': 'aupro_30',
  }
  assert [chart.name for chart in page.curves] == list(areas)
  for chart in page.curves:
    metric = areas[chart.name]
    for line, each in zip(chart.axes.lines, (evaluation, other, other), strict=False):
      value = each.maps['product'][metric]
      width = measured_curves.PRO_LIMIT if metric == 'aupro_30' else 1
      assert np.trapezoid(line.get_ydata(), line.get_xdata()) / width == pytest.approx(value)
      assert line.get_label().endswith(f'{metrics.TITLES[metric]} {value:.4f}')
    assert chart.axes.get_xlim() == (0, width)
    lines = {line.get_label(): line for line in chart.axes.lines}
    assert ('chance' in lines) == metric.endswith('auroc')
    if 'chance' in lines:
      assert lines['chance'].get_xydata().tolist() == [[0, 0], [1, 1]]


def test_aupimo_is_drawn_by_type_with_its_quartiles(page, evaluation, split):
  values = evaluation.aupimo['product'][4:9]
  quartiles, median, points = page.aupimo.chart.axes.lines
  assert points.get_xdata().tolist() == sorted(values.tolist())
  assert median.get_xdata().tolist() == [np.median(values)]
  assert quartiles.get_xdata() == pytest.approx(np.quantile(values, [0.25, 0.75]))
  assert [label.get_text() for label in page.aupimo.chart.axes.get_yticklabels()] == ['hole']
  assert 'The normal images have 3,072 pixels' in page.aupimo.note


def test_a_type_of_defect_may_have_any_name():
  values = {'$x^{': [0.5], '\udcff\n': [0.1, 0.2], 27 * '\N{CJK UNIFIED IDEOGRAPH-4E00}': [0, 1]}
  chart = aupimo_section.draw('k8', values)
  labels = [label.get_text() for label in chart.axes.get_yticklabels()]
  assert labels == [
    '$x^{',
    '\N{REPLACEMENT CHARACTER}' * 2,
    '…' + 19 * '\N{CJK UNIFIED IDEOGRAPH-4E00}',
  ]
  assert chart.uri.startswith('data:image/svg')


def marks(chart):
  """Where the threshold is marked in a chart."""
  return [
    line.get_xydata().tolist() for line in chart.axes.lines if line.get_label() == 'threshold'
  ]


def test_the_threshold_is_marked_on_the_curves_of_images(page):
  roc, precision_recall, *of_pixels = page.curves
  # 1 of 4 normal and 6 of 7 anomalous images are alarms.
  assert marks(roc) == [[[1 / 4, pytest.approx(6 / 7)]]]
  assert marks(precision_recall) == [[[pytest.approx(6 / 7), pytest.approx(6 / 7)]]]
  assert all(marks(chart) == [] for chart in of_pixels)


def test_a_threshold_above_all_scores_has_no_precision(split, evaluation):
  roc, precision_recall, *_ = measured_curves.make_charts(
    split, {'product': evaluation}, 'product', Threshold(9.0, 0.01, ensured=True)
  )
  assert marks(roc) == [[[0, 0]]]
  assert marks(precision_recall) == []


def test_without_anomalous_images_there_is_no_curve(split, evaluation):
  good = split.take(np.arange(4))
  maps = {name: each[:4] for name, each in evaluation.scores.maps.items()}
  images = {name: each[:4] for name, each in evaluation.scores.images.items()}
  scores = dataclasses.replace(evaluation.scores, maps=maps, images=images)
  nan = dict.fromkeys(metrics.TITLES, float('nan'))
  of_good = dataclasses.replace(
    evaluation,
    maps={'product': nan},
    per_defect={'product': {}},
    scores=scores,
    aupimo={'product': np.full(4, np.nan)},
  )
  threshold = Threshold(0.4, 0.05, ensured=True)
  page = evaluated.make(good, of_good, {}, (0, 1), ReportContext('good', threshold=threshold))
  assert (page.curves, page.headlines, page.aupimo) == ([], [], None)
  assert [table.name for table in page.tables] == ['maps']
