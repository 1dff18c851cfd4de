"""When training is said not to have paid."""

import numpy as np
import pytest

from patch_svdd_jax.data import arrays, synthetic_anomalies
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation import training_gain
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.separation import Separation
from patch_svdd_jax.evaluation.training_gain import TRAINED, TrainingGain, compare, measure
from patch_svdd_jax.models import encoder
from tests.support.runs import tiny_config


def separation(image, pixel, noise=0.0, groups=16, seed=0):
  figures = dict.fromkeys(TITLES, 0.5) | {'image_auroc': image, 'pixel_auroc': pixel}
  influence = np.random.default_rng(seed).normal(0, noise / np.sqrt(groups), groups)
  return Separation(figures, {}, {'image_auroc': influence, 'pixel_auroc': influence})


def of(trained, **references):
  systems = {TRAINED: trained, **references}
  return TrainingGain(
    16,
    {name: each.figures for name, each in systems.items()},
    {name: each.per_kind for name, each in systems.items()},
    {name: compare(trained, each) for name, each in references.items()},
  )


def test_a_better_reference_is_named_with_its_figures_and_a_remedy():
  text = of(separation(0.71, 0.9), untrained=separation(0.8, 0.95)).warning()
  assert text.startswith('training did not pay: on synthetic anomalies of 16 held-out images')
  assert 'reaches image AUROC 0.710 and pixel AUROC 0.900' in text
  assert 'untrained image AUROC 0.800 and pixel AUROC 0.950' in text
  assert 'config.train.steps' in text


@pytest.mark.parametrize(
  'reference',
  [
    separation(0.7, 0.9),  # as good
    separation(0.6, 0.85),  # worse
    separation(0.75, 0.84),  # better in images, more so worse in pixels
    separation(0.72, 0.91, noise=0.1, seed=1),  # better by less than chance
  ],
)
def test_no_warning_where_no_reference_is_surely_better(reference):
  assert of(separation(0.7, 0.9), untrained=reference).warning() is None


def test_what_both_find_hard_is_no_noise():
  # Their influences are the same: the difference does not depend on the images.
  trained, reference = separation(0.7, 0.9, noise=0.2), separation(0.72, 0.91, noise=0.2)
  difference, error = compare(trained, reference)
  assert difference == pytest.approx(-0.015)
  assert error == pytest.approx(0)
  assert of(trained, untrained=reference).warning()


def test_a_better_thumbnail_has_a_remedy_of_its_own():
  text = of(separation(0.71, 0.9), thumbnail=separation(0.8, 0.95)).warning()
  assert '(config.score.features, config.score.whiten)' in text


def test_the_references_need_no_training():
  config = tiny_config()
  found = training_gain.references(config)
  assert list(found) == ['untrained', 'thumbnail']
  assert found['untrained'] == config
  assert found['thumbnail'].score.features == ('thumbnail',)
  assert found['thumbnail'].score.whiten
  assert not config.score.whiten
  # No thumbnails beside themselves, nor where a scale has none.
  assert list(training_gain.references(found['thumbnail'])) == ['untrained']
  config.encoder.scales = (18, 9)
  assert list(training_gain.references(config)) == ['untrained']


def test_the_best_reference_comes_first():
  systems = of(separation(0.7, 0.9), untrained=separation(0.8, 0.9), thumbnail=separation(0.9, 0.9))
  assert systems.better() == ['thumbnail', 'untrained']


def textures(seed, count):
  """A split of such images."""
  rng = np.random.default_rng(seed)
  images = rng.normal(128, 20, (count, 40, 48, 1)) + np.zeros(3)
  images[:, ::8] = 220
  return arrays.resized(images.astype(np.uint8), tiny_config().data, arrays.numbered(count))


def test_measures_the_detector_and_what_needs_no_training(monkeypatch):
  monkeypatch.setattr(training_gain, 'FITTED', 4)
  config = tiny_config()
  normal, held_out = textures(0, 6), textures(1, 3)
  params = encoder.init_encoder(config)
  detector = Detector.fit(config, params, normal.images, step=0)
  titles = []

  def progress(title):
    titles.append(title)
    return iter

  found = measure(detector, normal, held_out, progress)
  assert found.images == 3
  # The untrained encoder is the detector's own here, and the memory banks are of as many images.
  assert found.figures['trained'] == found.figures['untrained']
  assert found.gains['untrained'] == (0, 0)
  assert 'untrained' not in found.better()
  assert found.summary().startswith('synthetic anomalies of 3 held-out images: trained image AUROC')
  assert set(found.per_kind['untrained']) >= {'stain', 'scratch', 'cut_and_paste'}
  assert len(set(titles)) == len(titles) == 2 * len(found.figures)


@pytest.mark.parametrize('count', [0, 1])
def test_nothing_is_told_by_less_than_two_held_out_images(count):
  config = tiny_config()
  detector = Detector.fit(config, encoder.init_encoder(config), textures(0, 2).images, step=0)
  assert measure(detector, textures(0, 2), textures(1, count), lambda _: iter) is None


def test_nothing_is_told_where_no_anomaly_can_be_seen(monkeypatch):
  config = tiny_config()
  detector = Detector.fit(config, encoder.init_encoder(config), textures(0, 2).images, step=0)
  monkeypatch.setattr(synthetic_anomalies, 'LEAST_LEVELS', 256)
  assert measure(detector, textures(0, 2), textures(1, 2), lambda _: iter) is None
