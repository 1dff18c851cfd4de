"""Figures of the pixels of regions of interest alone, against scikit-learn and definitions."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from patch_svdd_jax.data import appearance, synthetic_anomalies
from patch_svdd_jax.detection.calibration import Threshold, calibrate
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import aupimo, metrics, threshold_transfer
from patch_svdd_jax.evaluation.metric_curves import pro_curve
from patch_svdd_jax.evaluation.separation import Examples, auroc_influences, separate
from tests.evaluation.test_aupimo import make_maps

SIZE = (24, 30)
COUNT = 7
LABELS = np.arange(COUNT) > 2


def test_set():
  """Maps, masks and regions, each of another size; the defect of the last image lies outside."""
  rng = np.random.default_rng(0)
  masks, regions = np.zeros((2, COUNT, *SIZE), bool)
  for index in range(COUNT):
    regions[index, 2 : 9 + 2 * index, 3 : 20 + index] = True
    regions[index] &= rng.random(SIZE) < 0.95
  masks[3, 5:10, :12] = masks[4, 4:7, 8:14] = masks[4, 12:16, 18:] = masks[5, 8:12, 8:10] = True
  masks[6, 0:2, :] = True
  maps = np.round(rng.normal(size=masks.shape) + 1.5 * masks, 2).astype(np.float32)
  maps[~regions] = 0
  return maps, masks, regions


MAPS, MASKS, REGIONS = test_set()
test_set.__test__ = False


def measure(maps=MAPS, masks=MASKS, regions=REGIONS, labels=LABELS):
  defects = ['hole' if label else 'good' for label in labels]
  known = np.ones(len(labels), bool)
  return metrics.evaluate(labels, defects, masks, known, maps.max((1, 2)), maps, regions)


def aupro_inside(max_fpr):
  """By all thresholds: regions of defects end where the region of interest does."""
  truth = MASKS & REGIONS
  defects = []
  for mask, values in zip(truth, MAPS, strict=True):
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    defects += [values[labels == number] for number in range(1, count + 1)]
  normal = MAPS[REGIONS & ~truth]
  thresholds = np.unique(np.concatenate([normal, *defects]))[::-1]
  x = np.array([0, *((normal >= each).mean() for each in thresholds)])
  y = np.array([0, *(np.mean([(d >= each).mean() for d in defects]) for each in thresholds)])
  inside = x < max_fpr
  x, y = np.append(x[inside], max_fpr), np.append(y[inside], np.interp(max_fpr, x, y))
  return np.trapezoid(y, x) / max_fpr


def test_pixel_figures_are_those_of_the_pixels_in_regions():
  found = measure().overall
  truth, scores = MASKS[REGIONS], MAPS[REGIONS].astype(np.float64)
  assert found['pixel_auroc'] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
  assert found['pixel_ap'] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
  best = max(f1_score(truth, scores >= each) for each in np.unique(scores))
  assert found['pixel_f1_max'] == pytest.approx(best)
  assert found['pixel_miou_max'] == pytest.approx(best / (2 - best))
  assert found['aupro_30'] == pytest.approx(aupro_inside(0.3))
  assert found['aupro_5'] == pytest.approx(aupro_inside(0.05))
  assert found['image_auroc'] == roc_auc_score(LABELS, MAPS.max((1, 2)))
  curve = pro_curve(MASKS, MAPS, REGIONS)
  assert np.trapezoid(curve.y, curve.x) == pytest.approx(aupro_inside(1))


def test_what_lies_outside_is_nothing_to_them():
  maps, masks = MAPS.copy(), MASKS.copy()
  maps[~REGIONS], masks[~REGIONS] = 99, ~masks[~REGIONS]
  scores = MAPS.max((1, 2))
  known, defects = np.ones(COUNT, bool), ['hole' if label else 'good' for label in LABELS]
  found = metrics.evaluate(LABELS, defects, masks, known, scores, maps, REGIONS)
  expected = metrics.evaluate(LABELS, defects, MASKS, known, scores, MAPS, REGIONS)
  assert (found.overall, found.per_type) == (expected.overall, expected.per_type)
  np.testing.assert_array_equal(found.aupimo, expected.aupimo)
  assert np.isnan(expected.aupimo).tolist() == [True, True, True, False, False, False, True]


def test_aupimo_weighs_normal_images_alike_however_large_their_regions():
  shape = (120, 110)
  normal, maps, masks = make_maps(1, shape, None)
  all_maps = np.concatenate([normal, maps])
  all_masks = np.concatenate([np.zeros(normal.shape, bool), masks])
  regions = np.ones(all_maps.shape, bool)
  for index in range(3):
    regions[index, : 20 + 30 * index] = False
  regions[3, :5] = regions[6, 2] = False
  found = measure(all_maps, all_masks, regions, np.arange(7) > 2).aupimo[3:]
  inside = [each[region] for each, region in zip(normal, regions, strict=False)]
  expected = []
  for index in range(3, 7):
    defect = all_maps[index][all_masks[index] & regions[index]]
    expected.append(by_definition(inside, defect))
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert 0 < np.mean(expected) < 1


def by_definition(normal, defect):
  """The mean recall over log FPR, at so many rates that sums are as good as integrals."""
  low, high = np.log(aupimo.FPR_LIMITS)
  thresholds = np.unique(np.concatenate([*normal, defect]))[::-1]
  fpr = np.array([np.mean([(each >= t).mean() for each in normal]) for t in thresholds])
  recall = np.array([(defect >= t).mean() for t in thresholds])
  area, x, y = 0.0, 0.0, 0.0
  for x1, y1 in zip(fpr, recall, strict=True):
    left, right = max(x, np.exp(low)), min(x1, np.exp(high))
    if left < right:
      if x == 0:
        area += y * np.log(right / left)
      else:
        at = [y + (y1 - y) * np.log(each / x) / np.log(x1 / x) for each in (left, right)]
        area += sum(at) / 2 * np.log(right / left)
    x, y = x1, y1
  return area / (high - low)


def test_thresholds_are_tried_on_the_pixels_in_regions(split_of_regions):
  normal = ~LABELS
  known = calibrate(MAPS[normal].max((1, 2)), MAPS[normal], {}, REGIONS[normal])
  limit = Limits(Threshold(1.0, 0.1, True), Threshold(0.8, 0.1, True), ())
  scores = Scores({'k8': MAPS}, {'k8': MAPS.max((1, 2))}, {}, {}, {})
  figures = measure().overall
  found = threshold_transfer.measure(known, limit, split_of_regions, scores, figures)
  each = found.pixel['false_alarm_rate']
  called = MAPS > 0.8
  assert each.f1 == pytest.approx(f1_score(MASKS[REGIONS], called[REGIONS]))
  shares = [called[i][REGIONS[i]].mean() for i in np.flatnonzero(normal)]
  assert each.realised == pytest.approx(np.mean(shares))
  assert each.f1 <= each.best_f1
  whole = dataclasses.replace(split_of_regions, regions=np.ones_like(REGIONS))
  other = threshold_transfer.measure(known, limit, whole, scores, figures)
  assert other.pixel['false_alarm_rate'].realised == pytest.approx(called[normal].mean())


@pytest.fixture
def split_of_regions():
  from tests.detection.test_region_of_interest import split_of

  images = np.zeros((COUNT, *SIZE, 3), np.uint8)
  return dataclasses.replace(split_of(images, REGIONS, MASKS), labels=LABELS)


@pytest.fixture(scope='module')
def photo():
  rng = np.random.default_rng(3)
  return rng.integers(60, 190, (48, 64, 3)).astype(np.uint8)


def test_synthetic_anomalies_lie_in_the_region_and_are_made_of_it(photo):
  region = np.zeros(photo.shape[:2], bool)
  region[8:36, 10:50] = True
  options = {'seed': 0, 'regions': region[None]}
  images, masks, kinds = synthetic_anomalies.make(photo[None], **options)
  assert set(kinds) == set(synthetic_anomalies.KINDS)
  assert not masks[:, ~region].any()
  np.testing.assert_array_equal(
    images[:, ~region], np.broadcast_to(photo[~region], images[:, ~region].shape)
  )
  painted = photo.copy()
  painted[~region] = 255 - painted[~region]
  others, other_masks, _ = synthetic_anomalies.make(painted[None], **options)
  np.testing.assert_array_equal(other_masks, masks)
  np.testing.assert_array_equal(others[:, region], images[:, region])
  assert synthetic_anomalies.make(photo[None], seed=0, regions=np.zeros_like(region)[None])[2] == []


def test_separation_is_of_the_pixels_in_regions():
  class Known:
    def score(self, images, progress, regions):
      np.testing.assert_array_equal(regions, REGIONS)
      return Scores({'k8': MAPS}, {'k8': MAPS.max((1, 2))}, {}, {}, {})

  kinds = ['', '', '', 'stain', 'stain', 'blur', 'blur']
  sources = np.array([0, 1, 2, 0, 1, 2, 0])
  examples = Examples(np.zeros((COUNT, *SIZE, 3), np.uint8), MASKS, kinds, sources, REGIONS)
  found = separate(Known(), examples)
  assert found.figures == pytest.approx(measure().overall, nan_ok=True)
  of_pixels = np.broadcast_to(sources[:, None, None], REGIONS.shape)[REGIONS]
  expected = auroc_influences(MASKS[REGIONS], MAPS[REGIONS], of_pixels, 3)
  np.testing.assert_array_equal(found.influences['pixel_auroc'], expected)


def test_appearance_is_that_of_the_region(photo):
  region = np.zeros(photo.shape[:2], bool)
  region[5:30, 7:41] = True
  found = appearance.image_statistics(photo, region)
  # Of a rectangle it is that of the picture cut out.
  np.testing.assert_allclose(found, appearance.image_statistics(photo[5:30, 7:41]), rtol=1e-5)
  assert appearance.image_statistics(photo, np.zeros_like(region)).tolist() == [0, 0, 0, 0]
