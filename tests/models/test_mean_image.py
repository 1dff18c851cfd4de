"""Means of images and their subtraction against float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.models.mean_image import subtract_mean, training_mean


def images(count=7, size=(5, 9)):
  return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def test_mean_image_is_the_mean_of_each_pixel():
  mean = training_mean(images(), 'image')
  assert mean.dtype == np.float32
  expected = np.zeros((5, 9, 3))
  for image in images():
    expected += image.astype(np.float64) / 7
  np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_channel_mean_is_the_mean_of_all_pixels():
  mean = training_mean(images(), 'channel')
  assert (mean.shape, mean.dtype) == ((1, 1, 3), np.float32)
  expected = [sum(images()[..., channel].ravel().tolist()) / (7 * 45) for channel in range(3)]
  np.testing.assert_allclose(mean[0, 0], expected, rtol=1e-6)


def test_mean_keeps_its_digits_over_many_pixels():
  # A float32 sum stops counting at 2^24: these 6 million bytes sum to 1.5e9.
  bright = np.full((8, 512, 512, 3), 250, np.uint8)
  bright[0, 0, 0] = 0
  expected = 250 - 250 / (8 * 512 * 512)
  np.testing.assert_allclose(training_mean(bright, 'channel'), expected, rtol=1e-7)


@pytest.mark.parametrize('kind', ['image', 'channel'])
@pytest.mark.parametrize('lead', [(7,), (), (1, 7)], ids=str)
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_subtract_mean(kind, lead, dtype):
  chosen = images()[0] if lead == () else images().reshape(*lead, 5, 9, 3)
  mean = training_mean(images(), kind)
  found = subtract_mean(jnp.array(chosen.astype(dtype)), jnp.array(mean))
  assert (found.dtype, found.shape) == (jnp.float32, chosen.shape)
  expected = (chosen.astype(np.float64) - mean.astype(np.float64)) / 255
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
