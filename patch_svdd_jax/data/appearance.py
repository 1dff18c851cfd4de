"""What a photograph looks like in a few numbers, by which other light or another camera shows."""

import numpy as np
from scipy import ndimage

# In grey levels of 255, each.
NAMES = ('brightness', 'contrast', 'noise', 'sharpness')

_SECOND_DIFFERENCE = (1.0, -2.0, 1.0)


def grey_levels(image: np.ndarray) -> np.ndarray:
  """Returns the means f32[H, W] of the channels of u8[H, W, 3], in a tenth of numpy's time."""
  total = np.add(image[..., 0], image[..., 1], dtype=np.uint16)
  total += image[..., 2]
  levels: np.ndarray = total / np.float32(3)
  return levels


def image_statistics(image: np.ndarray) -> np.ndarray:
  """Returns the statistics of an image as it was taken, before its light is standardised.

  - brightness: the mean, and contrast: the standard deviation of its grey levels;
  - noise: the standard deviation of noise (Immerkaer, "Fast Noise Variance Estimation", 1996),
    which takes fine texture for noise;
  - sharpness: the standard deviation of the Laplacian.

  Args:
    image: u8[H, W, 3], H and W of at least 3 (of less, noise and sharpness are 0).

  Returns:
    f32[4], in the order of NAMES.
  """
  grey = grey_levels(image)
  if min(grey.shape) < 3:
    return np.array([grey.mean(), grey.std(), 0, 0], np.float32)
  inside = (slice(1, -1), slice(1, -1))
  rows, columns = (ndimage.correlate1d(grey, _SECOND_DIFFERENCE, axis) for axis in (0, 1))
  mixed = ndimage.correlate1d(rows, _SECOND_DIFFERENCE, 1)[inside]
  noise = np.sqrt(np.pi / 2) / 6 * np.abs(mixed).mean()
  sharpness = (rows + columns)[inside].std()
  return np.array([grey.mean(), grey.std(), noise, sharpness], np.float32)
