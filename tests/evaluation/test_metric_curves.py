"""Curves against scikit-learn's points and against the areas that `metrics` computes."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metric_curves, metrics
from patch_svdd_jax.evaluation.ranking import rank_elements as rank
from patch_svdd_jax.evaluation.ranking import rank_pixels, take_pixels


def sets_of_scores():
  rng = np.random.default_rng(0)
  labels = rng.random(300) < 0.2
  random = rng.normal(size=300) + labels
  yield 'random', labels, random.astype(np.float32)
  yield 'ties', labels, np.round(random)
  yield 'two values', labels, (random > 0.5).astype(float)
  yield 'constant', labels, np.full(300, 0.3)
  yield 'perfect', labels, labels + 0.1 * rng.random(300)
  yield 'inverted', labels, 0.1 * rng.random(300) - labels
  yield 'one anomalous', np.arange(300) == 7, random


def distances_to(curve, points):
  """From each point [P, 2] to the nearest of the curve's lines."""
  vertices = np.stack(curve, axis=1)
  start, way = vertices[:-1], np.diff(vertices, axis=0)
  along = np.einsum('psd,sd->ps', points[:, None] - start, way)
  along = np.clip(along / np.maximum((way**2).sum(-1), 1e-30), 0, 1)
  feet = start + along[..., None] * way
  return np.linalg.norm(points[:, None] - feet, axis=-1).min(1)


def test_roc_is_the_curve_of_scikit_learn():
  for name, labels, scores in sets_of_scores():
    curve = metric_curves.roc_curve(labels, scores)
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    points = np.stack([fpr, tpr], axis=1)
    # Each of its thresholds lies on the curve, and each vertex of the curve is one of them.
    assert distances_to(curve, points).max() < 1e-12, name
    vertices = np.stack(curve, axis=1)
    assert np.abs(vertices[:, None] - points).max(-1).min(1).max() < 1e-12, name
    assert len(vertices) <= 2 * np.count_nonzero(labels) + 2, name
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(metrics.auroc(rank(labels, scores))), (
      name
    )


def test_precision_recall_has_the_points_of_scikit_learn():
  for name, labels, scores in sets_of_scores():
    curve = metric_curves.precision_recall_curve(labels, scores)
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(labels, scores)
    at_anomalous = np.isin(thresholds, scores[labels])
    np.testing.assert_allclose(curve.x[1::2], recall[:-1][at_anomalous][::-1], err_msg=name)
    np.testing.assert_allclose(curve.y[1::2], precision[:-1][at_anomalous][::-1], err_msg=name)
    area = np.trapezoid(curve.y, curve.x)
    assert area == pytest.approx(sklearn_metrics.average_precision_score(labels, scores)), name
    assert (curve.x[0], curve.x[-1]) == (0, 1), name


def defective_maps(levels):
  rng = np.random.default_rng(3)
  masks = np.zeros((4, 12, 10), bool)
  masks[0, 2:5, 1:4] = masks[0, 8:, 6:] = masks[1, 10:, 8:] = masks[2, 0, 0] = True
  maps = rng.random(masks.shape) + 0.6 * masks
  return masks, maps if levels is None else np.round(levels * maps)


@pytest.mark.parametrize('levels', [None, 5, 1, 0])
@pytest.mark.parametrize('limit', [1, 0.3, 0.05, 0.001])
def test_the_area_of_pro_is_aupro(levels, limit):
  masks, maps = defective_maps(levels)
  whole = metric_curves.pro_curve(masks, maps)
  curve = metric_curves.up_to(whole, limit)
  assert curve.x[-1] == limit
  area = np.trapezoid(curve.y, curve.x) / limit
  assert area == pytest.approx(
    metrics.aupro(rank_pixels([take_pixels(masks, maps)]), limit), abs=1e-12
  )
  assert (whole.x[0], whole.y[0], whole.x[-1], whole.y[-1]) == (0, 0, 1, 1)


def test_pro_with_one_region_is_roc():
  masks, maps = defective_maps(7)
  masks[1:] = False
  masks[0, 8:, 6:] = False
  pro, roc = metric_curves.pro_curve(masks, maps), metric_curves.roc_curve(masks, maps)
  np.testing.assert_allclose(pro, roc, rtol=1e-12)


def test_infinite_scores_are_ordered_like_any_other():
  labels = np.array([1, 0, 1, 0, 1, 0, 0, 1], bool)
  scores = np.array([np.inf, np.inf, np.inf, 2, 2, 1, -np.inf, -np.inf])
  for curve in (metric_curves.roc_curve, metric_curves.precision_recall_curve):
    np.testing.assert_array_equal(curve(labels, scores), curve(labels, np.clip(scores, -9, 9)))


@pytest.mark.parametrize('label', [False, True])
def test_one_class_alone_has_no_curve(label):
  masks, maps = np.full((1, 2, 2), label), np.ones((1, 2, 2))
  for curve in (
    metric_curves.roc_curve(masks, maps),
    metric_curves.precision_recall_curve(masks, maps),
    metric_curves.up_to(metric_curves.pro_curve(masks, maps), 0.3),
  ):
    assert [part.shape for part in curve] == [(0,), (0,)]


def test_nan_scores_are_refused():
  masks, maps = defective_maps(None)
  maps[0, 0, 0] = np.nan
  with pytest.raises(UserError, match='1 of 480 anomaly scores are NaN'):
    metric_curves.pro_curve(masks, maps)
