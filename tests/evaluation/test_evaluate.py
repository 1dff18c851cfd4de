"""Evaluations against scikit-learn and counts by hand."""

import resource
import sys

import jax
import numpy as np
import psutil
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation.evaluate import evaluate, peak_memory, search_flop
from patch_svdd_jax.models import encoder

SIZE = (40, 48)


@pytest.fixture(scope='module')
def detector():
  config = default.get_config()
  config.data.image_size = SIZE
  config.encoder.update(
    {'receptive_field': 16, 'depth': 3, 'width': 0.25, 'embed_dim': 8, 'scales': (32, 16)}
  )
  config.score.strides = (8, 4)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: encoder.init_encoder(config))
  params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
  return Detector.fit(config, params, noise(1, 3), step=0)


def noise(seed, count):
  rng = np.random.default_rng(seed)
  return rng.normal(128, 10, (count, *SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope='module')
def split():
  """Two normal images, two with a bright square, three with a dark line; one lacks its mask."""
  images, masks = noise(2, 7), np.zeros((7, *SIZE), bool)
  masks[2:4, 10:18, 20:28] = True
  masks[4:7, 30:32] = True
  images[2:4][masks[2:4]] += 60
  images[4:7][masks[4:7]] -= 30
  has_mask = np.arange(7) != 5
  masks[5] = False
  return Split(
    images=images,
    masks=masks,
    has_mask=has_mask,
    labels=np.arange(7) >= 2,
    defects=('good',) * 2 + ('square',) * 2 + ('line',) * 3,
    names=tuple(f'test/{i}.png' for i in range(7)),
    sizes=np.full((7, 2), SIZE),
    appearance=np.zeros((7, 4), np.float32),
    digests=('',) * 7,
  )


@pytest.fixture(scope='module')
def evaluation(detector, split):
  return evaluate(detector, split)


def best_f1(labels, scores):
  precision, recall, _ = precision_recall_curve(labels, scores)
  return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))


ORACLES = {'auroc': roc_auc_score, 'ap': average_precision_score, 'f1_max': best_f1}


def assert_figures(figures, split, use, scores, maps):
  """Compares with scikit-learn on the images `use`, pixels where the mask is known."""
  known = use & split.has_mask
  for name, oracle in ORACLES.items():
    assert figures[f'image_{name}'] == pytest.approx(oracle(split.labels[use], scores[use]))
    expected = oracle(split.masks[known].ravel(), maps[known].ravel())
    assert figures[f'pixel_{name}'] == pytest.approx(expected)


def test_metrics_of_every_map_and_defect(evaluation, split):
  assert list(evaluation.maps) == list(evaluation.per_defect) == ['k32', 'k16', 'sum', 'product']
  scores = evaluation.scores
  for name in evaluation.maps:
    of_map = scores.images[name], scores.maps[name]
    assert_figures(evaluation.maps[name], split, np.ones(7, bool), *of_map)
    assert list(evaluation.per_defect[name]) == ['line', 'square']
    for defect, figures in evaluation.per_defect[name].items():
      use = ~split.labels | (np.array(split.defects) == defect)
      assert_figures(figures, split, use, *of_map)


def test_metrics_of_each_light_are_of_its_own_images(evaluation, detector, split):
  lights = ['regular', 'dark', 'regular', 'dark', 'regular', 'dark', '']
  found = evaluate(detector, split, lights=lights)
  assert found.maps == evaluation.maps
  assert evaluation.per_lighting == {}
  for name, of_lights in found.per_lighting.items():
    assert list(of_lights) == ['regular', 'dark']
    for light, figures in of_lights.items():
      use = np.array(lights) == light
      assert_figures(figures, split, use, found.scores.images[name], found.scores.maps[name])


def test_scores_are_raw(evaluation, detector, split):
  scored = detector.score(split.images)
  for name, maps in evaluation.scores.maps.items():
    np.testing.assert_array_equal(maps, scored.maps[name])
    np.testing.assert_array_equal(evaluation.scores.images[name], maps.max(axis=(1, 2)))


def test_flop_of_the_search(detector):
  # Patches of 32 and of 16 pixels at strides of 8 and 4; three training images; D is 8.
  small, large = 2 * 3, 7 * 9
  assert search_flop(detector, SIZE) == 2 * 8 * (small * 3 * small + large * 3 * large)
  # A larger query image has more patches, the bank has not.
  assert search_flop(detector, (48, 48)) == 2 * 8 * (9 * 3 * small + 81 * 3 * large)


def test_timing(evaluation):
  timing, seconds = evaluation.timing, evaluation.scores.seconds
  assert timing.keys() == {
    'embed_images_per_s',
    'search_images_per_s',
    'map_images_per_s',
    'images_per_s',
    'search_gflop_per_s',
    'search_fallback_fraction',
    'bank_rows',
    'peak_memory_mib',
    'metrics_seconds',
  }
  assert 0 <= timing['search_fallback_fraction'] <= 1
  assert all(value > 0 for name, value in timing.items() if name != 'search_fallback_fraction')
  assert timing['bank_rows'] == 3 * (6 + 63)
  assert timing['images_per_s'] * sum(seconds.values()) == pytest.approx(1)
  assert timing['search_images_per_s'] * seconds['search'] == pytest.approx(1)
  assert timing['search_gflop_per_s'] == pytest.approx(192_240 / seconds['search'] / 1e9)


@pytest.mark.skipif(sys.platform != 'linux', reason='counts in the units of Linux')
def test_peak_memory_has_what_was_freed():
  block = np.ones(2**28, np.uint8)
  held = psutil.Process().memory_info().rss
  del block
  # The kernel counts in batches of pages.
  assert peak_memory() >= 0.99 * held >= 2**28
  # It is of this process: no more than the kernel says that any has held since it was forked.
  assert peak_memory() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 1.01
