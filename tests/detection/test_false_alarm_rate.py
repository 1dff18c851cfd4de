"""The rate of false alarms on fresh normal images is the one that was asked for."""

import numpy as np
import pytest
from scipy import stats

from patch_svdd_jax import data
from patch_svdd_jax.configs import laptop
from patch_svdd_jax.data import arrays, textures
from patch_svdd_jax.detection import calibration_scores, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models.encoder import init_encoder

SEEDS = 20
LEARNED, HELD_OUT, FRESH = 24, 100, 100


def crops(rng, photograph, count):
  """Random crops of a photograph: one as likely as any other, which makes them exchangeable."""
  corners = rng.integers(0, 512 - textures.SIZE + 1, (count, 2))
  return [textures.crop(photograph, corner) for corner in corners]


def images(config, given):
  return data.light(arrays.resized(given, config, arrays.numbered(len(given))), config)


@pytest.mark.slow
@pytest.mark.usefixtures('optimised')
@pytest.mark.parametrize('texture', textures.CATEGORIES)
def test_realised_rates_over_seeds(texture, capsys):
  """A detector that is calibrated 20 times by 100 images, each time tried on 100 fresh ones."""
  config = laptop.get_config(texture)
  config.score.strides = (16, 8)
  config.calibration.images = HELD_OUT
  photograph = textures.photographs()[texture]
  params = init_encoder(config)
  alarms, pixels = {0.01: [], 0.05: []}, {0.01: [], 0.05: []}
  learned = images(config.data, crops(np.random.default_rng(SEEDS), photograph, LEARNED))
  fitted = Detector.fit(config, params, learned.images, step=0)
  for seed in range(SEEDS):
    rng = np.random.default_rng(seed)
    held_out, fresh = (
      images(config.data, crops(rng, photograph, count)) for count in (HELD_OUT, FRESH)
    )
    detector = calibration_scores.calibrate(fitted, learned, held_out)
    assert inspection.calibrated(detector).images == HELD_OUT
    scores = detector.score(fresh.images)
    for rate in alarms:
      limit = inspection.limits(detector, rate, rate)
      alarms[rate].append(np.sum(scores.images['product'] > limit.image.value))
      pixels[rate].append(np.mean(scores.maps['product'] > limit.pixel.value))
  with capsys.disabled():
    for rate, counts in alarms.items():
      share = np.sum(counts) / (SEEDS * FRESH)
      print(
        f'\n{texture}: asked {rate:.0%}, images {share:.2%}, pixels {np.mean(pixels[rate]):.2%}'
      )
  for rate, counts in alarms.items():
    places = int(rate * (HELD_OUT + 1))
    law = stats.betabinom(FRESH, places, HELD_OUT + 1 - places)
    # The number of alarms of one seed is beta-binomial, and that of all nearly normal.
    assert abs(np.sum(counts) - SEEDS * law.mean()) < 3 * law.std() * SEEDS**0.5
    assert np.mean(pixels[rate]) < rate + 3 * np.std(pixels[rate]) / SEEDS**0.5
