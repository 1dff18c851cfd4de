"""Metrics against scikit-learn, their definitions in O(n^2), and exact fractions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure
from sklearn import metrics as sklearn_metrics

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.ranking import rank_elements as rank
from patch_svdd_jax.evaluation.ranking import rank_pixels, take_pixels

KEYS = [
  *('image_auroc', 'image_ap', 'image_f1_max'),
  *('pixel_auroc', 'pixel_ap', 'pixel_f1_max', 'pixel_miou_max', 'aupro_30', 'aupro_5', 'aupimo'),
]


def rank_maps(masks, maps):
  return rank_pixels([take_pixels(masks, maps)])


def pair_counting_auroc(labels, scores):
  """The share of (anomalous, normal) pairs in the right order, ties one half."""
  halves = [
    2 * int(a > b) + int(a == b) for a in scores[labels] for b in scores[~labels]
  ]  # fmt: skip
  return Fraction(sum(halves), 2 * len(halves))


def f1_by_definition(labels, scores):
  """(F1, threshold) of every threshold there is."""
  found = []
  for threshold in np.unique(scores):
    called = scores >= threshold
    hits = np.sum(called & labels)
    found.append((Fraction(int(2 * hits), int(called.sum() + labels.sum())), threshold))
  return found


def miou_by_definition(labels, scores):
  """The best intersection over union of the anomalous elements, of every threshold there is."""
  ious = []
  for threshold in np.unique(scores):
    called = scores >= threshold
    ious.append(Fraction(int(np.sum(called & labels)), int(np.sum(called | labels))))
  return max(ious)


def aupro_by_definition(masks, maps, max_fpr):
  """The trapezoids under the curve through every threshold, in fractions."""
  max_fpr = Fraction(max_fpr)
  regions = [
    maps[i][labelled == k]
    for i, mask in enumerate(masks)
    for labelled in [measure.label(mask, connectivity=2)]
    for k in range(1, labelled.max() + 1)
  ]
  normal = maps[~masks]
  curve = [(Fraction(0), Fraction(0))]
  for threshold in np.unique(maps)[::-1]:
    overlap = sum(Fraction(int(np.sum(r >= threshold)), r.size) for r in regions) / len(regions)
    curve.append((Fraction(int(np.sum(normal >= threshold)), normal.size), overlap))
  area = Fraction(0)
  for (x0, y0), (x1, y1) in itertools.pairwise(curve):
    if x1 > max_fpr:
      if x0 < max_fpr:
        y_limit = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
        area += (max_fpr - x0) * (y0 + y_limit) / 2
      break
    area += (x1 - x0) * (y0 + y1) / 2
  return float(area / max_fpr)


def sets_of_scores(dtype):
  rng = np.random.default_rng(0)
  labels = rng.random(400) < 0.2
  random = rng.normal(size=400) + labels
  yield 'random', labels, random.astype(dtype)
  yield 'ties', labels, np.round(random).astype(dtype)
  yield 'two values', labels, (random > 0.5).astype(dtype)
  yield 'constant', labels, np.full(400, 0.3, dtype)
  yield 'perfect', labels, (labels + 0.1 * rng.random(400)).astype(dtype)
  yield 'inverted', labels, (0.1 * rng.random(400) - labels).astype(dtype)
  yield 'adjacent floats', labels, np.nextafter(dtype(0.75), dtype(labels)).astype(dtype)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_agree_with_scikit_learn(dtype):
  for name, labels, scores in sets_of_scores(dtype):
    np.testing.assert_allclose(
      metrics.auroc(rank(labels, scores)),
      sklearn_metrics.roc_auc_score(labels, scores),
      rtol=1e-12,
      err_msg=name,
    )
    np.testing.assert_allclose(
      metrics.average_precision(rank(labels, scores)),
      sklearn_metrics.average_precision_score(labels, scores),
      rtol=1e-12,
      err_msg=name,
    )
    f1, threshold = metrics.f1_max(rank(labels, scores))
    assert f1 == pytest.approx(sklearn_metrics.f1_score(labels, scores >= threshold)), name


def test_auroc_counts_pairs():
  for name, labels, scores in sets_of_scores(np.float32):
    assert metrics.auroc(rank(labels, scores)) == float(pair_counting_auroc(labels, scores)), name


def test_f1_max_is_the_best_of_all_thresholds():
  for name, labels, scores in sets_of_scores(np.float32):
    best, threshold = max(f1_by_definition(labels, scores))
    assert metrics.f1_max(rank(labels, scores)) == (float(best), threshold), name


def test_miou_max_is_the_best_of_all_thresholds():
  for name, labels, scores in sets_of_scores(np.float32):
    ranking = rank(labels, scores)
    best = float(miou_by_definition(labels, scores))
    assert metrics.miou_max(ranking) == best, name
    threshold = metrics.f1_max(ranking)[1]
    reached = sklearn_metrics.jaccard_score(labels, scores >= threshold)
    assert reached == pytest.approx(best, rel=1e-12), name


def test_infinite_scores_are_ordered_like_any_other():
  labels = np.array([1, 0, 1, 0, 1, 0, 0, 1], bool)
  scores = np.array([np.inf, np.inf, np.inf, 2, 2, 1, -np.inf, -np.inf])
  finite = np.clip(scores, -9, 9)
  found, clipped = rank(labels, scores), rank(labels, finite)
  assert metrics.auroc(found) == metrics.auroc(clipped)
  assert metrics.average_precision(found) == metrics.average_precision(clipped)
  assert metrics.f1_max(found)[0] == metrics.f1_max(clipped)[0]
  found, clipped = (
    rank_maps(labels.reshape(2, 2, 2), x.reshape(2, 2, 2)) for x in (scores, finite)
  )
  assert metrics.aupro(found, 0.3) == metrics.aupro(clipped, 0.3)


def defective_maps(seed, levels=None):
  """Masks whose regions touch by a corner or across images, and maps that see them."""
  rng = np.random.default_rng(seed)
  masks = np.zeros((4, 12, 10), bool)
  masks[0, 2:5, 1:4] = masks[0, 5:7, 4:6] = True  # joined by a corner: one region
  masks[0, 10:, 8:] = masks[1, 10:, 8:] = True  # the same place in two images: two regions
  masks[2, 0, 0] = True  # one pixel
  maps = (rng.random(masks.shape) + 0.6 * masks).astype(np.float32)
  return masks, maps if levels is None else np.round(levels * maps)


@pytest.mark.parametrize('levels', [None, 5, 1])
@pytest.mark.parametrize('max_fpr', [1, 0.3, 0.05, 0.001])
def test_aupro_is_the_area_under_all_thresholds(levels, max_fpr):
  for seed in range(3):
    masks, maps = defective_maps(seed, levels)
    expected = aupro_by_definition(masks, maps, max_fpr)
    assert metrics.aupro(rank_maps(masks, maps), max_fpr) == pytest.approx(expected, rel=1e-12)


def test_aupro_of_a_constant_map_is_that_of_chance():
  masks, _ = defective_maps(0)
  for max_fpr in (1, 0.3, 0.05):
    value = metrics.aupro(rank_maps(masks, np.full(masks.shape, 0.7, np.float32)), max_fpr)
    assert value == pytest.approx(max_fpr / 2, rel=1e-12)


def test_aupro_never_exceeds_one():
  rng = np.random.default_rng(0)
  for _ in range(200):
    masks = rng.random((2, 9, 11)) < 0.3
    for max_fpr in (1, 0.3, 0.05, 1e-9):
      assert metrics.aupro(rank_maps(masks, masks + 0.5 * rng.random(masks.shape)), max_fpr) == 1


def test_aupro_with_one_region_to_the_end_is_auroc():
  masks = np.zeros((2, 8, 8), bool)
  masks[1, 2:6, 2:6] = True
  maps = np.random.default_rng(1).integers(0, 9, masks.shape).astype(np.float32)
  assert metrics.aupro(rank_maps(masks, maps), 1) == pytest.approx(
    metrics.auroc(rank(masks, maps)), rel=1e-12
  )


@pytest.mark.parametrize('max_fpr', [0, -0.1, 1.1, math.nan])
def test_aupro_refuses_a_limit_outside_its_range(max_fpr):
  with pytest.raises(ValueError, match='max_fpr'):
    metrics.aupro(rank_maps(*defective_maps(0)), max_fpr)


labelled_scores = st.lists(
  st.tuples(st.booleans(), st.integers(-9, 9)), min_size=2, max_size=40
).map(lambda pairs: (np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], float)))


@settings(deadline=None)
@given(labelled_scores)
def test_only_the_order_of_scores_matters(case):
  labels, scores = case
  image, maps = labels.reshape(1, 1, -1), scores.reshape(1, 1, -1)
  for monotone in (np.exp, lambda x: x**3 - 5, lambda x: x.astype(np.float32) / 7):
    ranking, mapped = rank(labels, scores), rank(labels, monotone(scores))
    np.testing.assert_equal(metrics.auroc(mapped), metrics.auroc(ranking))
    np.testing.assert_equal(metrics.average_precision(mapped), metrics.average_precision(ranking))
    f1, threshold = metrics.f1_max(ranking)
    expected = f1, float(monotone(np.array(threshold)))
    np.testing.assert_equal(metrics.f1_max(mapped), expected)
    np.testing.assert_equal(
      metrics.aupro(rank_maps(image, monotone(maps)), 0.3),
      metrics.aupro(rank_maps(image, maps), 0.3),
    )


@settings(deadline=None)
@given(labelled_scores)
def test_values_are_shares_and_negation_mirrors_auroc(case):
  labels, scores = case
  if labels.all() or not labels.any():
    return
  auroc = metrics.auroc(rank(labels, scores))
  assert auroc == float(pair_counting_auroc(labels, scores))
  assert metrics.auroc(rank(labels, -scores)) == pytest.approx(1 - auroc, abs=1e-15)
  assert metrics.auroc(rank(~labels, scores)) == pytest.approx(1 - auroc, abs=1e-15)
  best, threshold = max(f1_by_definition(labels, scores))
  assert metrics.f1_max(rank(labels, scores)) == (float(best), threshold)
  image, maps = labels.reshape(1, 1, -1), scores.reshape(1, 1, -1)
  for value in (
    metrics.average_precision(rank(labels, scores)),
    *(metrics.aupro(rank_maps(image, maps), limit) for limit in (1, 0.3, 0.05)),
  ):
    assert 0 <= value <= 1


def test_one_hot_pixel_among_ten_million():
  # Whole numbers up to 2^24 are exact in float32, so every normal score is distinct.
  scores = np.arange(10_000_000, dtype=np.float32).reshape(10, 1000, 1000)
  masks = np.zeros(scores.shape, bool)
  hot = 9_876_543
  masks.ravel()[hot] = True
  elements, pixels = rank(masks, scores), rank_maps(masks, scores)
  higher, normals = 10_000_000 - 1 - hot, 10_000_000 - 1
  assert metrics.auroc(elements) == hot / normals
  assert metrics.average_precision(elements) == 1 / (higher + 1)
  assert metrics.f1_max(elements) == (2 / (higher + 2), hot)
  for max_fpr in (0.3, 0.05):
    expected = 1 - Fraction(higher, normals) / Fraction(max_fpr)
    assert metrics.aupro(pixels, max_fpr) == pytest.approx(float(expected), rel=1e-15)


def test_heavy_ties_beyond_the_last_float32_count():
  # Seven values; one region of one size in each image, so the overlap is the true positive rate.
  shape = (5, 2048, 2048)
  assert math.prod(shape) > 2**24
  scores = np.resize(np.random.default_rng(0).integers(0, 7, 100_003).astype(np.float32), shape)
  masks = np.zeros(shape, bool)
  masks[:, :256, :512] = True
  scores[masks] += scores[masks] < 3
  elements, pixels = rank(masks, scores), rank_maps(masks, scores)
  positives, negatives = (
    np.bincount(scores[part].astype(int), minlength=7).tolist() for part in (masks, ~masks)
  )
  P, N = sum(positives), sum(negatives)
  hits, alarms = ([sum(counts[v:]) for v in range(8)] for counts in (positives, negatives))

  won_halves = sum(positives[v] * (2 * (N - alarms[v]) + negatives[v]) for v in range(7))
  assert metrics.auroc(elements) == won_halves / (2 * P * N)

  precision = sum(Fraction(positives[v] * hits[v], P * (hits[v] + alarms[v])) for v in range(7))
  assert metrics.average_precision(elements) == pytest.approx(float(precision), rel=1e-14)

  best = max((Fraction(2 * hits[v], hits[v] + alarms[v] + P), v) for v in range(7))
  assert metrics.f1_max(elements) == (float(best[0]), best[1])

  fpr, tpr = np.array(alarms[::-1]) / N, np.array(hits[::-1]) / P
  for max_fpr in (0.3, 0.05):
    inside = fpr < max_fpr
    x, y = np.append(fpr[inside], max_fpr), np.append(tpr[inside], np.interp(max_fpr, fpr, tpr))
    expected = np.trapezoid(y, x) / max_fpr
    assert metrics.aupro(pixels, max_fpr) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('label', [False, True])
def test_one_class_alone_has_no_metric(label):
  labels, scores = np.full((2, 3, 3), label), np.random.default_rng(0).random((2, 3, 3))
  assert math.isnan(metrics.auroc(rank(labels, scores)))
  assert math.isnan(metrics.average_precision(rank(labels, scores)))
  assert all(map(math.isnan, metrics.f1_max(rank(labels, scores))))
  assert math.isnan(metrics.miou_max(rank(labels, scores)))
  assert math.isnan(metrics.aupro(rank_maps(labels, scores), 0.3))


def test_nan_scores_are_refused_with_their_count_and_place():
  masks, maps = defective_maps(0)
  maps[1, 2, 3] = maps[3, 0, 0] = np.nan
  with pytest.raises(UserError, match=r'2 of 480 .* NaN, the first at index \(1, 2, 3\)'):
    rank(masks, maps)
  with pytest.raises(UserError, match='NaN'):
    metrics.evaluate(np.zeros(4, bool), ['good'] * 4, masks, np.ones(4, bool), np.zeros(4), maps)


def test_shapes_must_agree():
  with pytest.raises(ValueError, match='shapes must agree'):
    rank(np.zeros(3, bool), np.zeros(4))
  masks, maps = defective_maps(0)
  with pytest.raises(ValueError, match='images'):
    metrics.evaluate(np.zeros(4, bool), ['good'] * 3, masks, np.ones(4, bool), np.zeros(4), maps)


def small_test_set():
  """Three good images, two scratches, two holes of which one lacks its mask."""
  rng = np.random.default_rng(3)
  defects = ('good', 'scratch', 'good', 'hole', 'hole', 'good', 'scratch')
  labels = np.array([name != 'good' for name in defects])
  has_mask = np.array([True, True, True, True, False, True, True])
  masks = np.zeros((7, 16, 12), bool)
  masks[[1, 6], 3:9, 2:4] = masks[3, 10:13, 5:9] = masks[6, 12:, 7:] = True
  maps = np.round(4 * (rng.random(masks.shape) + 0.7 * masks)).astype(np.float32)
  return labels, defects, masks, has_mask, rng.random(7) + 0.4 * labels, maps


def check_measures(measured, aupimo, labels, masks, has_mask, scores, maps):
  pixels, values = masks[has_mask].ravel(), maps[has_mask].ravel()
  assert list(measured) == KEYS
  assert measured == pytest.approx(
    {
      'image_auroc': sklearn_metrics.roc_auc_score(labels, scores),
      'image_ap': sklearn_metrics.average_precision_score(labels, scores),
      'image_f1_max': float(max(f1_by_definition(labels, scores))[0]),
      'pixel_auroc': sklearn_metrics.roc_auc_score(pixels, values),
      'pixel_ap': sklearn_metrics.average_precision_score(pixels, values),
      'pixel_f1_max': float(max(f1_by_definition(pixels, values))[0]),
      'pixel_miou_max': float(miou_by_definition(pixels, values)),
      'aupro_30': aupro_by_definition(masks[has_mask], maps[has_mask], 0.3),
      'aupro_5': aupro_by_definition(masks[has_mask], maps[has_mask], 0.05),
      'aupimo': np.nanmean(aupimo),  # see test_aupimo.py
    },
    rel=1e-12,
  )


def test_evaluate_measures_all_images_and_each_type_of_defect():
  labels, defects, masks, has_mask, scores, maps = small_test_set()
  overall, per_type, aupimo = metrics.evaluate(labels, defects, masks, has_mask, scores, maps)
  check_measures(overall, aupimo, labels, masks, has_mask, scores, maps)
  assert list(per_type) == ['hole', 'scratch']
  for name, measured in per_type.items():
    use = ~labels | (np.array(defects) == name)
    check_measures(
      measured, aupimo[use], labels[use], masks[use], has_mask[use], scores[use], maps[use]
    )


def test_evaluate_without_masks_keeps_the_image_metrics():
  labels, defects, masks, _, scores, maps = small_test_set()
  overall, per_type, _ = metrics.evaluate(labels, defects, masks & False, ~labels, scores, maps)
  for measured in (overall, *per_type.values()):
    assert not any(math.isnan(measured[key]) for key in KEYS[:3])
    assert all(math.isnan(measured[key]) for key in KEYS[3:])


@pytest.mark.parametrize('images', [0, 3])
def test_evaluate_without_defects_is_nan_throughout(images):
  overall, per_type, aupimo = metrics.evaluate(
    np.zeros(images, bool),
    ('good',) * images,
    np.zeros((images, 8, 8), bool),
    np.ones(images, bool),
    np.zeros(images),
    np.zeros((images, 8, 8), np.float32),
  )
  assert list(overall) == KEYS
  assert all(map(math.isnan, [*overall.values(), *aupimo]))
  assert per_type == {}
