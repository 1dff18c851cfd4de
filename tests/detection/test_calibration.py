"""Conformal p-values against counting, thresholds against p-values, rates against simulation."""

import numpy as np
import pytest
from scipy import stats

from patch_svdd_jax.detection.calibration import KEPT, calibrate, rate_warning


def maps_of(scores, rng, size=(6, 7)):
  """Maps whose maxima are the scores."""
  maps = rng.random((len(scores), *size)) * scores[:, None, None]
  maps.reshape(len(scores), -1)[:, 3] = scores
  return maps


def draw(rng, images):
  scores = rng.lognormal(size=images)
  return scores, maps_of(scores, rng)


def test_image_p_values_count():
  rng = np.random.default_rng(0)
  scores, maps = draw(rng, 30)
  scores = np.round(scores, 1)  # ties
  found = calibrate(scores, maps, {})
  asked = np.concatenate([scores, [-1.0, 1e9], rng.lognormal(size=5)])
  expected = [(1 + sum(s >= each for s in scores)) / 31 for each in asked]
  np.testing.assert_allclose(found.p_values(asked), expected)


def test_moments_of_all_pixels():
  rng = np.random.default_rng(5)
  maps = (1000 + rng.random((7, 5, 6))).astype(np.float32)
  found = calibrate(maps.max(axis=(1, 2)), maps, {}).pixel_moments
  exact = maps.astype(np.float64)
  np.testing.assert_allclose(found, [exact.mean(), exact.std()], rtol=1e-12)


def pixel_p_values(maps, values):
  """(1 + n times the share of pixels that are as high) / (n + 1)."""
  share = (maps.size - np.searchsorted(np.sort(maps, axis=None), values)) / maps.size
  return (1 + len(maps) * share) / (len(maps) + 1)


@pytest.mark.parametrize('rate', [0.12, 0.2, 0.5])
@pytest.mark.parametrize('side', [7, 100])
def test_above_the_pixel_threshold_p_is_at_most_the_rate(rate, side):
  """By all pixels where these are few; among many it is rounded up."""
  rng = np.random.default_rng(1)
  scores = rng.lognormal(size=8)
  maps = maps_of(scores, rng, (side, side))
  found = calibrate(scores, maps, {})
  assert len(found.levels) <= 2 * KEPT
  values = np.concatenate([maps.ravel(), rng.lognormal(size=300), [0.0, 1e9]])
  p, alarms = pixel_p_values(maps, values), values > found.pixel_threshold(rate).value
  assert (p[alarms] <= rate).all()
  assert alarms[: maps.size][p[: maps.size] <= (rate if maps.size <= KEPT else 0.98 * rate)].all()


@pytest.mark.parametrize('rate', [0.011, 0.05, 0.1, 0.5])
@pytest.mark.parametrize('images', [99, 100, 250])
def test_above_the_threshold_p_is_at_most_the_rate(images, rate):
  rng = np.random.default_rng(2)
  scores, maps = draw(rng, images)
  found = calibrate(scores, maps, {})
  image, pixel = found.threshold(rate), found.pixel_threshold(rate)
  assert image.ensured
  assert image.rate <= rate < image.rate + 1 / (images + 1)
  asked = np.concatenate([scores, rng.lognormal(size=300)])
  np.testing.assert_array_equal(asked > image.value, found.p_values(asked) <= rate)
  assert pixel.ensured
  values = np.concatenate([maps.ravel(), rng.lognormal(size=300)])
  p, alarms = pixel_p_values(maps, values), values > pixel.value
  assert (p[alarms] <= rate).all()
  assert alarms[p <= 0.98 * rate].all()


def test_a_rate_that_is_a_whole_number_of_images_is_used_up():
  # In floating point .29 * 100 is 28.999999999999996.
  scores = np.arange(99.0)
  assert calibrate(scores, scores[:, None, None], {}).threshold(0.29).rate == pytest.approx(0.29)


def test_too_few_images_for_a_rate():
  rng = np.random.default_rng(3)
  scores, maps = draw(rng, 20)
  found = calibrate(scores, maps, {})
  image, pixel = found.threshold(0.01), found.pixel_threshold(0.01)
  assert image == (scores.max(), 1 / 21, False)
  assert np.mean(maps > pixel.value) <= 0.01 < np.mean(maps >= np.nextafter(pixel.value, 0)) + 0.01
  assert not pixel.ensured
  assert rate_warning(found.threshold(0.1), 0.1, 20, 'images') is None
  text = rate_warning(image, 0.01, 20, 'images')
  assert '20 normal images cannot ensure a false-alarm rate of 0.01 for images' in text
  assert 'takes 99' in text
  assert 'is for 0.048' in text
  assert 'not ensured either' in rate_warning(pixel, 0.01, 20, 'pixels')


def test_one_image_and_a_constant_map():
  found = calibrate(np.ones(1), np.ones((1, 4, 4)), {})
  np.testing.assert_array_equal(found.p_values(np.array([0.5, 1.0, 2.0])), [1.0, 1.0, 0.5])
  assert not found.pixel_threshold(0.1).ensured
  assert found.pixel_threshold(0.1).value == 1.0


@pytest.mark.parametrize('rate', [0.01, 0.05])
def test_the_rate_holds_on_exchangeable_images(rate):
  """Alarms of 400 draws of 120 images and 50 fresh ones: beta-binomial, of known variance."""
  rng = np.random.default_rng(4)
  images, fresh, draws = 120, 50, 400
  alarms, pixels, expected = [], [], 0.0
  for _ in range(draws):
    # A level that all images of a draw share makes the scores dependent, but exchangeable.
    scores, maps = draw(rng, images + fresh)
    level = rng.lognormal()
    found = calibrate(scores[:images] * level, maps[:images] * level, {})
    threshold, pixel = found.threshold(rate), found.pixel_threshold(rate)
    expected = threshold.rate
    alarms.append(np.sum(scores[images:] * level > threshold.value))
    pixels.append(np.mean(maps[images:] * level > pixel.value))
  places = round(expected * (images + 1))
  law = stats.betabinom(fresh, places, images + 1 - places)
  error = law.std() / draws**0.5
  assert law.mean() == pytest.approx(fresh * expected)
  assert abs(np.mean(alarms) - fresh * expected) < 4 * error
  # Of pixels the expectation is at most the rate, and not far below it.
  assert np.mean(pixels) < rate + 4 * np.std(pixels) / draws**0.5
  assert np.mean(pixels) > rate - 1.5 / images - 4 * np.std(pixels) / draws**0.5
