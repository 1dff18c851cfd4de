"""What relit images score beside the same ones as they are."""

import types

import ml_collections
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.data import lighting
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import light_sensitivity
from patch_svdd_jax.evaluation.light_sensitivity import LIGHTINGS, Lighting

IMAGES = np.random.default_rng(0).integers(60, 190, (9, 8, 8, 3), dtype=np.uint8)


class MeanDetector:
  """Scores an image by its mean grey level; the product counts."""

  def __init__(self, light):
    self.config = ml_collections.ConfigDict({'data': {'light': light}})

  def regions_of(self, images, regions):
    assert regions is None
    return regions

  def score(self, images, _, regions):
    assert regions is None
    means = images.mean(axis=(1, 2, 3))
    return Scores({}, {'k32': -means, 'product': means}, {}, {}, {})


def test_scores_are_compared_as_scikit_learn_does():
  rng = np.random.default_rng(1)
  scores, relit = rng.normal(3, 1, 40), rng.normal(4, 1, 30)
  found = light_sensitivity.compare(Lighting(5, 1.0), scores, relit)
  labels = [0] * 40 + [1] * 30
  assert found.auroc == pytest.approx(roc_auc_score(labels, np.concatenate([scores, relit])))
  assert found.ratio == pytest.approx(np.median(relit) / np.median(scores))
  assert found.lighting == (5, 1.0)


def test_a_detector_that_sees_brightness_tells_relit_images():
  found = light_sensitivity.measure_sensitivity(MeanDetector('kept'), IMAGES)
  assert [each.lighting for each in found] == list(LIGHTINGS)
  means = IMAGES.mean(axis=(1, 2, 3))
  for each in found:
    relit = lighting.change(IMAGES, *each.lighting).mean(axis=(1, 2, 3))
    assert each.ratio == pytest.approx(np.median(relit) / np.median(means))
    assert each.auroc == {True: 1, False: 0}[relit.min() > means.max()]


def test_standardised_images_take_any_light():
  standard = lighting.standardise(IMAGES)
  for each in light_sensitivity.measure_sensitivity(MeanDetector('standardised'), standard):
    assert each.ratio == pytest.approx(1, abs=0.02)


def test_named_lights_of_normal_test_images():
  labels = np.arange(9) > 6
  lights = ['regular', 'shift_1', 'regular', 'dark', 'dark', '', 'regular', 'dark', 'shift_1']
  test = types.SimpleNamespace(images=IMAGES, labels=labels, regions=None)
  found = light_sensitivity.measure_lights(MeanDetector('kept'), test, lights)
  means = IMAGES.mean(axis=(1, 2, 3))
  assert [each.lighting for each in found] == ['dark', 'shift_1']
  for each, own in zip(found, ([3, 4], [1]), strict=True):
    scores = means[[0, 2, 6, *own]]
    assert each.auroc == pytest.approx(roc_auc_score([0] * 3 + [1] * len(own), scores))
    assert each.ratio == pytest.approx(np.median(means[own]) / np.median(means[[0, 2, 6]]))


def test_without_the_light_of_training_nothing_is_compared():
  test = types.SimpleNamespace(images=IMAGES, labels=np.arange(9) == 0)
  lights = ['regular'] + ['dark'] * 8
  assert light_sensitivity.measure_lights(MeanDetector('kept'), test, lights) == []
