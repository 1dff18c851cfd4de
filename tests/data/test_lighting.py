import numpy as np
import pytest

from patch_svdd_jax.data import lighting

IMAGES = np.random.default_rng(0).integers(65, 136, (70, 12, 15, 3), dtype=np.uint8)


def test_standardised_images_have_the_same_light():
  found = lighting.standardise(IMAGES)
  assert found.dtype == np.uint8
  np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 128, atol=0.5)
  np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 48, atol=0.5)


@pytest.mark.parametrize(('shift', 'gain'), [(-30, 1.0), (25, 1.0), (0, 1.4), (-10, 0.8)])
def test_other_light_makes_no_difference(shift, gain):
  changed = lighting.change(IMAGES, shift, gain)
  expected = np.clip(np.rint(gain * IMAGES.astype(np.float64) + shift), 0, 255)
  np.testing.assert_array_equal(changed, expected)
  difference = lighting.standardise(changed).astype(int) - lighting.standardise(IMAGES)
  # Half a grey level of rounding, raised by the gain of 48 / 20 / .8.
  assert np.abs(difference).max() <= 3


def test_images_are_standardised_one_by_one():
  alone = np.concatenate([lighting.standardise(image[None]) for image in IMAGES])
  np.testing.assert_array_equal(alone, lighting.standardise(IMAGES))


def test_an_image_of_one_colour_becomes_the_mean():
  flat = np.full((2, 4, 4, 3), 7, np.uint8)
  np.testing.assert_array_equal(lighting.standardise(flat), np.full_like(flat, 128))


def test_contrast_is_raised_eightfold_at_most():
  faint = np.full((1, 10, 10, 3), 50, np.uint8)
  faint[0, :5] = 52
  found = lighting.standardise(faint)
  assert sorted(np.unique(found)) == [120, 136]
