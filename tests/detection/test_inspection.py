"""Verdicts on scores, and what is said of each image."""

from types import SimpleNamespace

import numpy as np
import pytest

from patch_svdd_jax.data import Split, appearance
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.calibration import Threshold, calibrate
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.scores import Scores

SCORES = np.array([0.3, 0.5, 0.7], np.float32)
SPLIT = Split(
  images=np.zeros((3, 4, 6, 3), np.uint8),
  masks=np.zeros((3, 4, 6), bool),
  has_mask=np.zeros(3, bool),
  labels=np.zeros(3, bool),
  defects=('good',) * 3,
  names=('a.png', 'b.png', 'c.png'),
  sizes=np.array([(8, 12), (8, 12), (8, 24)]),
  appearance=np.array([[9.0, 1.0, 1.0, 1.0], [1.0] * 4, [1.0] * 4], np.float32),
  digests=('',) * 3,
)


@pytest.fixture
def found():
  maps = np.zeros((3, 4, 6), np.float32)
  maps[:, 1, 2:4] = SCORES[:, None]
  normal = np.linspace(0.1, 0.9, 9)
  statistics = dict.fromkeys(appearance.NAMES, np.linspace(0, 2, 200))
  detector = SimpleNamespace(calibration=calibrate(normal, maps, statistics))
  scores = Scores({'k8': maps}, {'k8': SCORES}, {}, {}, {'embed': 0.5, 'search': 0.25})
  limit = Limits(Threshold(float(SCORES[1]), 0.1, True), Threshold(0.4, 0.1, True), ())
  return inspection.judge(detector, scores, SPLIT, limit)


def test_a_score_at_the_threshold_is_no_alarm(found):
  assert found.alarms.tolist() == [False, False, True]


def test_each_image(found):
  dark, _, high = found.of_each(SPLIT)
  assert (dark.name, dark.verdict, dark.regions) == ('a.png', 'pass', ())
  assert dark.warnings == found.warnings[0]
  assert len(dark.warnings) == 1
  assert high.to_json() == {
    'image': 'c.png',
    'verdict': 'alarm',
    'score': float(SCORES[2]),
    'p_value': pytest.approx((1 + 3) / (9 + 1)),
    'size': [24, 8],
    'regions': [{'box': [8, 2, 8, 2], 'area': 16, 'score': float(SCORES[2])}],
    'warnings': [],
  }
  assert Prediction.from_json(high.to_json()) == high


def test_seconds_of_padding_are_those_of_the_images(found):
  assert list(found.seconds) == ['embed', 'search', 'verdict']
  assert found.seconds['verdict'] > 0
  two = found.first(2)
  # Three images, of which one was a copy, took as long.
  assert two.seconds == pytest.approx({name: each * 3 / 2 for name, each in found.seconds.items()})
  assert found.first(3).seconds == pytest.approx(found.seconds)
