"""Statistics of photographs, against numpy and known noise."""

import numpy as np
import pytest

from patch_svdd_jax.data import appearance


def statistics_of(image):
  return dict(zip(appearance.NAMES, appearance.image_statistics(image), strict=True))


def ramp(size=64):
  """u8[size, size, 3], brighter to the right: neither noise nor edges."""
  return np.broadcast_to(np.arange(size, dtype=np.uint8)[None, :, None], (size, size, 3))


def test_brightness_and_contrast_are_those_of_grey_levels():
  image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  grey = image.astype(np.float64).mean(-1)
  found = statistics_of(image)
  assert found['brightness'] == pytest.approx(grey.mean(), rel=1e-5)
  assert found['contrast'] == pytest.approx(grey.std(), rel=1e-5)


@pytest.mark.parametrize('deviation', [2.0, 6.0])
def test_noise_is_found_whatever_it_lies_on(deviation):
  rng = np.random.default_rng(1)
  noise = rng.normal(0, deviation, (256, 256, 1))
  step = np.where(np.arange(256) < 128, 60.0, 180.0)[None, :, None]
  for base in (128.0, step):
    image = np.broadcast_to(np.rint(base + noise).astype(np.uint8), (256, 256, 3))
    assert statistics_of(image)['noise'] == pytest.approx(deviation, rel=0.1)


def test_a_ramp_has_neither_noise_nor_sharpness():
  found = statistics_of(ramp())
  assert found['noise'] == pytest.approx(0, abs=1e-4)
  assert found['sharpness'] == pytest.approx(0, abs=1e-4)


def test_sharpness_is_the_deviation_of_the_laplacian():
  image = np.random.default_rng(2).integers(0, 256, (12, 15, 3), np.uint8)
  grey = image.astype(np.float64).mean(-1)
  laplacian = [
    grey[i - 1, j] + grey[i + 1, j] + grey[i, j - 1] + grey[i, j + 1] - 4 * grey[i, j]
    for i in range(1, 11)
    for j in range(1, 14)
  ]
  assert statistics_of(image)['sharpness'] == pytest.approx(np.std(laplacian), rel=1e-4)


@pytest.mark.parametrize('size', [(1, 1), (2, 50)])
def test_images_of_a_few_pixels(size):
  found = statistics_of(np.full((*size, 3), 7, np.uint8))
  assert found == {'brightness': 7, 'contrast': 0, 'noise': 0, 'sharpness': 0}
