"""AUPIMO against its definition, which goes through all thresholds one by one, and anomalib."""

import itertools
import math

import numpy as np
import pytest

from patch_svdd_jax.evaluation import aupimo, metrics

LOW, HIGH = aupimo.FPR_LIMITS


def by_definition(normal_maps, anomaly_map, mask):
  """The mean recall over log FPR: trapezoids between all distinct thresholds, in float64."""
  defect = anomaly_map[mask]
  curve = [(0.0, 0.0)]
  for threshold in np.unique(np.concatenate([normal_maps.ravel(), defect]))[::-1]:
    fpr = np.mean([np.mean(normal >= threshold) for normal in normal_maps])
    curve.append((float(fpr), float(np.mean(defect >= threshold))))
  area = 0.0
  for (x0, y0), (x1, y1) in itertools.pairwise(curve):
    left, right = max(x0, LOW), min(x1, HIGH)
    if left >= right:
      continue
    if x0 == 0:  # No line over log FPR begins there: the recall before the first false positive.
      area += y0 * math.log(right / left)
      continue
    at_left, at_right = (
      y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0) for x in (left, right)
    )
    area += (at_left + at_right) / 2 * math.log(right / left)
  return area / math.log(HIGH / LOW)


def measure(normal_maps, maps, masks):
  """AUPIMO of all images, through the metrics."""
  count = len(normal_maps)
  all_maps = np.concatenate([normal_maps, maps])
  all_masks = np.concatenate([np.zeros(normal_maps.shape, bool), masks])
  labels = np.arange(len(all_maps)) >= count
  measured = metrics.evaluate(
    labels,
    ['good'] * count + ['hole'] * len(maps),
    all_masks,
    np.ones(labels.shape, bool),
    all_maps.max((1, 2)),
    all_maps,
  )
  assert np.isnan(measured.aupimo[:count]).all()
  return measured.aupimo[count:]


def make_maps(seed, shape, levels):
  """Three normal maps with few scores above 0, and four with defects of several sizes."""
  rng = np.random.default_rng(seed)
  normal, maps = np.full((3, *shape), -1.0), np.full((4, *shape), -1.0)
  masks = np.zeros(maps.shape, bool)
  masks[0, 3:9, 2:7] = masks[1, 5, 5] = masks[3, 1:4, :9] = masks[3, 6:8, 3:] = True
  masks[2] = True
  defect = masks & (rng.random(masks.shape) < 0.8)
  maps[defect] = np.round(200 * rng.random(np.count_nonzero(defect))) / 100
  high = rng.integers(0, normal.size, round(1.2e-4 * normal.size))
  normal.ravel()[high] = 2 * rng.random(high.size)
  if levels:
    normal, maps = np.round(levels * normal), np.round(levels * maps)
  return normal.astype(np.float32), maps.astype(np.float32), masks


# Below 10,000, below 100,000 and above 100,000 normal pixels.
@pytest.mark.parametrize('shape', [(50, 50), (120, 110), (210, 200)])
@pytest.mark.parametrize('levels', [None, 9, 1])
def test_is_the_mean_recall_over_log_fpr(shape, levels):
  normal, maps, masks = make_maps(1, shape, levels)
  expected = [by_definition(normal, *each) for each in zip(maps, masks, strict=True)]
  np.testing.assert_allclose(measure(normal, maps, masks), expected, rtol=1e-9)
  if shape == (210, 200) and levels != 1:
    assert 0 < min(expected) < max(expected) < 1


def test_equal_scores_rise_along_a_line_over_log_fpr():
  # 200,000 normal pixels: 2 score 3, 10 score 2, so their FPRs are L and 6 L.
  normal = np.zeros((2, 1000, 100), np.float32)
  normal[0, 0, :2], normal[1, 0, :10] = 3, 2
  maps = np.array([3, 2, 1, 0], np.float32)[:, None, None] * np.ones((1000, 100), np.float32)
  found = measure(normal, maps, np.ones(maps.shape, bool))
  ramp = math.log(6) / 2
  expected = [1, (ramp + math.log(10 / 6)) / math.log(10)]
  assert found[:2] == pytest.approx(expected, rel=1e-12)
  # From 6 L a line rises to the FPR 1 of all, at which the recall of score 0 is 1.
  rise, log = math.log(10 / 6), math.log(1 / 6e-5)
  assert found[3] == pytest.approx(rise**2 / 2 / log / math.log(10), rel=1e-12)
  # Score 1 lies between: found whole once the FPR is above 6 L.
  assert found[2] == pytest.approx(rise / math.log(10), rel=1e-12)


def test_without_a_false_positive_it_is_the_share_above_all_normal_pixels():
  normal = np.full((1, 4, 4), 0.5, np.float32)
  maps = np.full((2, 4, 4), 0.5, np.float32)
  maps[0, :2] = 1
  found = measure(normal, maps, np.ones(maps.shape, bool))
  assert found.tolist() == [0.5, 0]


@pytest.mark.parametrize('score', [0.25, 0.75, math.inf, -math.inf])
def test_one_pixel(score):
  normal, maps = np.full((1, 1, 1), 0.5), np.full((1, 1, 1), score)
  assert measure(normal, maps, np.ones(maps.shape, bool)).tolist() == [score > 0.5]


def test_no_normal_image_no_mask_and_no_defective_pixel_have_none():
  maps = np.random.default_rng(0).random((3, 6, 6))
  masks = np.zeros(maps.shape, bool)
  masks[:2, 2:4, 2:4] = True
  assert np.isnan(measure(maps[:0], maps, masks)).all()
  measured = metrics.evaluate(
    np.array([False, True, True]),
    ['good', 'hole', 'scratch'],
    masks[[2, 0, 2]],
    np.array([True, False, True]),
    np.zeros(3),
    maps,
  )
  assert np.isnan(measured.aupimo).all()
  assert math.isnan(measured.overall['aupimo'])
  assert all(math.isnan(each['aupimo']) for each in measured.per_type.values())


def test_figures_are_means_over_images_and_so_are_those_of_types():
  normal, maps, masks = make_maps(2, (120, 110), None)
  all_maps, known = np.concatenate([normal, maps]), np.array([True] * 6 + [False])
  measured = metrics.evaluate(
    np.arange(7) > 2,
    ['good'] * 3 + ['hole', 'hole', 'scratch', 'hole'],
    np.concatenate([np.zeros(normal.shape, bool), masks]),
    known,
    all_maps.max((1, 2)),
    all_maps,
  )
  expected = measure(normal, maps, masks)[:3]
  np.testing.assert_array_equal(measured.aupimo, [math.nan] * 3 + [*expected, math.nan])
  assert measured.overall['aupimo'] == pytest.approx(np.mean(expected))
  assert measured.per_type['hole']['aupimo'] == pytest.approx(np.mean(expected[:2]))
  assert measured.per_type['scratch']['aupimo'] == expected[2]
  assert aupimo.distribution(measured.aupimo) == {
    'mean': pytest.approx(np.mean(expected)),
    'std': pytest.approx(np.std(expected)),
    'quartiles': pytest.approx(np.percentile(expected, [25, 50, 75]).tolist()),
    'images': 3,
  }


@pytest.mark.slow
def test_agrees_with_anomalib_where_its_thresholds_are_all_there_are():
  reason = 'anomalib, which brings PyTorch, is in no list of requirements'
  functional = pytest.importorskip('anomalib.metrics.pimo.functional', reason=reason)
  import torch

  rng = np.random.default_rng(0)
  # Scores are whole numbers, as its thresholds; those of 4 and of 40 normal pixels are the limits.
  shape, limits, top = (200, 200), (4, 40), 150
  normal = rng.integers(0, 100, (10, *shape)).astype(float)
  normal[:, :2, :2] = rng.integers(100, top, (10, 2, 2))
  normal[3, :2, :2] = top
  assert limits == tuple(round(each * normal.size) for each in aupimo.FPR_LIMITS)
  maps = rng.integers(60, top + 20, (4, *shape)).astype(float)
  masks = np.zeros(maps.shape, bool)
  masks[0, 3:9, 2:70] = masks[1, 5, 5:9] = masks[3, 10:40, :90] = masks[3, 60:80, 3:] = True
  masks[2] = True
  *_, expected, points = functional.aupimo_scores(
    torch.from_numpy(np.concatenate([normal, maps])),
    torch.from_numpy(np.concatenate([np.zeros(normal.shape, bool), masks])),
    num_thresholds=top + 1,
    force=True,
  )
  assert points > 30
  np.testing.assert_allclose(measure(normal, maps, masks), expected[10:], atol=1e-12)
  assert 0 < min(expected[10:]) < max(expected[10:]) < 1
