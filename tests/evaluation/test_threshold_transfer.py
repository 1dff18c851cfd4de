"""Transferred thresholds against scikit-learn, beta quantiles, and counting in float64."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, precision_recall_fscore_support

from patch_svdd_jax.data import Split, appearance
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.calibration import Calibration, calibrate
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.threshold_transfer import (
  binomial_interval,
  calibration_error,
  error_by_chance,
  measure,
)
from patch_svdd_jax.system import files

SIDE = 6
RATE, PIXEL_RATE = 0.1, 0.05


def draw(seed, images):
  """Maps of few distinct values, so that scores are equal to thresholds and to each other."""
  maps = np.random.default_rng(seed).lognormal(size=(images, SIDE, SIDE))
  return np.round(maps, 1).astype(np.float32)


NORMAL = draw(0, 39)
CALIBRATION = calibrate(
  NORMAL.max(axis=(1, 2)), NORMAL, dict.fromkeys(appearance.NAMES, np.zeros(2))
)


def limits_of(calibration):
  return inspection.limits(SimpleNamespace(calibration=calibration), RATE, PIXEL_RATE)


def split_of(labels, masks, has_mask):
  count = len(labels)
  return Split(
    images=np.zeros((*masks.shape, 3), np.uint8),
    masks=masks,
    has_mask=has_mask,
    labels=labels,
    defects=tuple('dot' if label else 'good' for label in labels),
    names=tuple(map(str, range(count))),
    sizes=np.full((count, 2), SIDE),
    appearance=np.zeros((count, 4), np.float32),
    digests=('',) * count,
  )


def measured(maps, labels, masks, has_mask=None, calibration=CALIBRATION):
  """What the thresholds give, and the best F1 of `metrics`."""
  has_mask = np.ones(len(maps), bool) if has_mask is None else has_mask
  split = split_of(labels, masks, has_mask)
  scores = Scores({'k16': maps}, {'k16': maps.max(axis=(1, 2))}, {}, {}, {})
  figures = metrics.evaluate(labels, split.defects, masks, has_mask, scores.images['k16'], maps)[0]
  return measure(calibration, limits_of(calibration), split, scores, figures), figures


@pytest.fixture(scope='module')
def test_images():
  """Sixteen normal images and 14 defective ones, of which two have no mask: maps, labels, ..."""
  maps, masks = draw(1, 30), np.zeros((30, SIDE, SIDE), bool)
  labels = np.arange(30) >= 16
  masks[16:28, 1:4, 2:4] = True
  maps[masks] *= 4
  return maps, labels, masks, np.arange(30) < 28


def test_f1_precision_and_recall_are_those_of_scikit_learn(test_images):
  maps, labels, masks, has_mask = test_images
  found, figures = measured(*test_images)
  normal = NORMAL.astype(np.float64)
  scores = normal.max(axis=(1, 2))
  limits = limits_of(CALIBRATION)
  expected = {
    'image': {
      'false_alarm_rate': limits.image.value,
      'mean_plus_3_std': np.mean(scores) + 3 * np.std(scores),
    },
    'pixel': {
      'false_alarm_rate': limits.pixel.value,
      'mean_plus_3_std': np.mean(normal) + 3 * np.std(normal),
    },
  }
  elements = {
    'image': (labels, maps.max(axis=(1, 2))),
    'pixel': (masks[has_mask].ravel(), maps[has_mask].ravel()),
  }
  for kind, values in expected.items():
    truth, element_scores = elements[kind]
    group = getattr(found, kind)
    assert list(group) == list(values)
    for name, value in values.items():
      each = group[name]
      called = element_scores > each.value
      precision, recall, f1, _ = precision_recall_fscore_support(truth, called, average='binary')
      assert each.value == pytest.approx(value)
      assert (each.f1, each.precision, each.recall) == pytest.approx((f1, precision, recall))
      assert each.best_f1 == figures[f'{kind}_f1_max']
      assert each.gap == pytest.approx(figures[f'{kind}_f1_max'] - f1_score(truth, called))
      assert each.gap >= 0


def test_calls_are_those_of_inspection(test_images):
  """Scores that equal a threshold, too."""
  maps, labels, masks, _ = test_images
  limits = limits_of(CALIBRATION)
  maps = maps.copy()
  maps[:3, 0, 0] = limits.image.value
  np.minimum(maps[:3], limits.image.value, out=maps[:3])
  found, _ = measured(maps, labels, masks)
  scores = Scores({'k16': maps}, {'k16': maps.max(axis=(1, 2))}, {}, {}, {})
  split = split_of(labels, masks, np.ones(30, bool))
  judged = inspection.judge(SimpleNamespace(calibration=CALIBRATION), scores, split, limits)
  assert not judged.alarms[:3].any()
  assert found.image['false_alarm_rate'].false_alarms == judged.alarms[~labels].sum()
  assert found.image['false_alarm_rate'].recall == judged.alarms[labels].mean()


def test_false_alarms_beside_what_is_promised(test_images):
  maps, labels, _, _ = test_images
  found, _ = measured(*test_images)
  limits, normal = limits_of(CALIBRATION), maps[~labels].astype(np.float64)
  image, pixel = found.image['false_alarm_rate'], found.pixel['false_alarm_rate']
  assert (image.promised, image.ensured) == (limits.image.rate, True) == (RATE, True)
  assert (pixel.promised, pixel.ensured) == (limits.pixel.rate, True)
  count = sum(each.max() > image.value for each in normal)
  assert (image.false_alarms, image.realised) == (count, count / 16)
  assert image.interval == binomial_interval(count, 16)
  shares = [np.mean(each > pixel.value) for each in normal]
  assert pixel.realised == pytest.approx(np.mean(shares))
  assert pixel.false_alarms is None
  assert np.isnan(pixel.interval).all()
  for group in found.image, found.pixel:
    assert np.isnan(group['mean_plus_3_std'].promised)
    assert not group['mean_plus_3_std'].ensured


@pytest.mark.parametrize(('count', 'trials'), [(0, 7), (1, 1), (3, 41), (20, 20), (0, 1)])
def test_the_interval_has_the_quantiles_of_beta_laws(count, trials):
  low = stats.beta.ppf(0.025, count, trials - count + 1) if count else 0
  high = stats.beta.ppf(0.975, count + 1, trials - count) if count < trials else 1
  assert binomial_interval(count, trials) == pytest.approx((low, high), abs=1e-12)


def uniform(n):
  """A calibration by the scores 1 ... n."""
  return Calibration(np.arange(1.0, n + 1), np.zeros(1), np.zeros(1), {})


def test_the_calibration_error_is_a_distance_of_laws():
  """Wasserstein-1, of the p-values from all that can occur, each once."""
  rng = np.random.default_rng(2)
  for n, m in ((1, 1), (19, 7), (50, 200)):
    calibration = uniform(n)
    normal = rng.choice(np.arange(0, n + 3) / 1.5, m)  # some equal each other, or are outside
    grid = np.arange(1, n + 2) / (n + 1)
    expected = stats.wasserstein_distance(calibration.p_values(normal), grid)
    assert calibration_error(calibration, normal) == pytest.approx(expected, abs=1e-12)


def test_calibration_errors_that_are_known():
  calibration = uniform(9)
  between = np.arange(0.5, 10)  # one between each two of the others: each p-value once
  assert calibration_error(calibration, between) == pytest.approx(0, abs=1e-12)
  # All far above, all far below: p is .1, and 1, of each.
  rates = np.arange(1, 11) / 10
  assert calibration_error(calibration, np.full(4, 99.0)) == pytest.approx(np.mean(1 - rates))
  assert calibration_error(calibration, np.full(4, -1.0)) == pytest.approx(rates[:-1].sum() / 10)
  assert np.isnan(calibration_error(calibration, np.zeros(0)))


def test_the_error_by_chance_is_that_of_draws():
  rng = np.random.default_rng(3)
  n, m, draws = 19, 8, 3000
  found = []
  for _ in range(draws):
    scores = rng.random(n + m)
    calibration = Calibration(np.sort(scores[:n]), np.zeros(1), np.zeros(1), {})
    found.append(calibration_error(calibration, scores[n:]))
  error = np.std(found) / draws**0.5
  assert error_by_chance(n, m) == pytest.approx(np.mean(found), abs=4 * error)
  # p is 1/2 or 1, as likely: none or all are at most 1/2 where a half should be.
  assert error_by_chance(1, 1) == pytest.approx(0.25)
  assert np.isnan(error_by_chance(19, 0))


def test_without_a_normal_image():
  maps, masks = draw(4, 3), np.zeros((3, SIDE, SIDE), bool)
  masks[:, 2, 2] = True
  found, _ = measured(maps, np.ones(3, bool), masks)
  assert (found.normal_images, found.image['false_alarm_rate'].false_alarms) == (0, 0)
  for each in (*found.image.values(), *found.pixel.values()):
    assert np.isnan([each.realised, *each.interval]).all()
  for each in found.image.values():
    assert np.isnan([each.f1, each.precision, each.recall, each.best_f1, each.gap]).all()
  assert np.isfinite(found.pixel['false_alarm_rate'].f1)
  assert np.isnan([found.calibration_error, found.error_by_chance]).all()
  written = json.dumps(files.to_json(found.to_json()), allow_nan=False)
  assert json.loads(written)['image']['false_alarm_rate']['interval'] == [None, None]


def test_without_a_defect():
  found, _ = measured(draw(5, 4), np.zeros(4, bool), np.zeros((4, SIDE, SIDE), bool))
  for each in (*found.image.values(), *found.pixel.values()):
    assert np.isnan([each.f1, each.precision, each.recall, each.best_f1, each.gap]).all()
    assert np.isfinite(each.realised)
  assert found.normal_images == 4
  assert np.isfinite(found.calibration_error)


def test_without_masks():
  labels = np.arange(4) >= 2
  found, _ = measured(draw(6, 4), labels, np.zeros((4, SIDE, SIDE), bool), ~labels)
  for each in found.pixel.values():
    assert np.isnan([each.f1, each.best_f1, each.gap]).all()
    assert np.isfinite(each.realised)
  assert np.isfinite(found.image['false_alarm_rate'].f1)


def test_defects_that_cover_all():
  """Of an image: its pixels are anomalous all; of all images: SegF1 lacks a class."""
  masks = np.zeros((3, SIDE, SIDE), bool)
  masks[1:] = True
  maps = draw(7, 3)
  found, _ = measured(maps, np.array([False, True, True]), masks)
  each = found.pixel['false_alarm_rate']
  assert each.f1 == pytest.approx(f1_score(masks.ravel(), (maps > each.value).ravel()))
  found, _ = measured(maps[1:], np.ones(2, bool), masks[1:])
  assert np.isnan(found.pixel['false_alarm_rate'].f1)


def test_one_pixel_and_nothing_called():
  """F1 and recall are 0 where a defect is missed; precision has nothing to be a share of."""
  maps, masks = np.zeros((2, 1, 1), np.float32), np.array([[[False]], [[True]]])
  found, _ = measured(maps, masks.ravel(), masks)
  for each in (*found.image.values(), *found.pixel.values()):
    assert (each.f1, each.recall, each.realised) == (0, 0, 0)
    assert np.isnan(each.precision)
    assert each.gap == each.best_f1 == pytest.approx(2 / 3)


def test_a_calibration_without_moments_of_pixels(test_images):
  """As detectors have it that were saved before there were any: nothing is made up."""
  kept = {name: getattr(CALIBRATION, name) for name in ('scores', 'levels', 'shares', 'statistics')}
  found, _ = measured(*test_images, calibration=Calibration(**kept))
  each = found.pixel['mean_plus_3_std']
  assert np.isnan([each.value, each.f1, each.precision, each.recall, each.realised, each.gap]).all()
  whole, _ = measured(*test_images)
  assert found.image == whole.image
  assert found.pixel['false_alarm_rate'][:5] == whole.pixel['false_alarm_rate'][:5]
