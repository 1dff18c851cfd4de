"""Light: what photographs share of it is taken away, or changed on purpose."""

from collections.abc import Iterable

import numpy as np

# What data sets call the light of their training images.
REGULAR = 'regular'
# Grey levels that standardised images have, and by how much contrast is raised at most: an image of
# one colour has none to raise.
MEAN, DEVIATION, LARGEST_GAIN = 128.0, 48.0, 8.0

# Images that are converted at a time.
_BLOCK = 64


def ordered(lights: Iterable[str]) -> list[str]:
  """Returns each light of `Dataset.lights` once, that of training first, then by name."""
  return sorted({*lights} - {''}, key=lambda light: (light != REGULAR, light))


def to_grey_levels(values: np.ndarray) -> np.ndarray:
  """Rounds to uint8, and cuts off what is darker than black or brighter than white."""
  levels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
  return levels


def standardise(images: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray:
  """Brings every image to one mean and one standard deviation over pixels and channels.

  Colours keep their relation: all channels of an image are changed alike.

  Args:
    images: u8[N, H, W, 3].
    regions: bool[N, H, W], over whose pixels mean and deviation are; None: over all. All pixels are
      changed.

  Returns:
    u8[N, H, W, 3].
  """
  lit = np.empty_like(images)
  for first in range(0, len(images), _BLOCK):
    block = images[first : first + _BLOCK].astype(np.float32)
    if regions is None:
      mean, deviation = (each(axis=(1, 2, 3), keepdims=True) for each in (block.mean, block.std))
    else:
      mean, deviation = _light_inside(block, regions[first : first + _BLOCK])
    gain = np.minimum(DEVIATION / np.maximum(deviation, 1e-6), LARGEST_GAIN)
    lit[first : first + _BLOCK] = to_grey_levels(MEAN + gain * (block - mean))
  return lit


def _light_inside(block: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation f32[N, 1, 1, 1] of pixels in regions that are not empty."""
  inside = [
    each[region] if region.any() else each for each, region in zip(block, regions, strict=True)
  ]
  mean, deviation = (
    np.array([getattr(pixels, name)() for pixels in inside], np.float32).reshape(-1, 1, 1, 1)
    for name in ('mean', 'std')
  )
  return mean, deviation


def change(images: np.ndarray, shift: float, gain: float) -> np.ndarray:
  """Returns images under other light: gain * image + shift, in grey levels.

  Args:
    images: u8[N, H, W, 3].
    shift: grey levels added.
    gain: factor.

  Returns:
    u8[N, H, W, 3].
  """
  return to_grey_levels(gain * images.astype(np.float32) + shift)
