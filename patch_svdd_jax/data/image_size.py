"""The size that images are resized to: given in pixels, or by the training images' own.

A side of 0 in `config.data.image_size` is open: (512, 0) is 512 pixels high and as wide as the
training images' aspect ratio makes it, (0, 512) likewise, and (0, 0) is the training images' own
size. Where they differ, their median counts.
"""

from collections.abc import Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.errors import UserError

# The name of width / height among the statistics that a calibration keeps of normal images.
ASPECT = 'aspect ratio'

# The most pixels along a side.
LARGEST = 2**16

# By how much aspect ratios may differ before images count as stretched.
TOLERANCE = 0.03


def check(size: Sequence[int]) -> None:
  """Refuses what is no size.

  Raises:
    UserError: names the key.
  """
  if len(size) != 2 or not all(isinstance(side, int) and 0 <= side <= LARGEST for side in size):
    raise UserError(
      f'config.data.image_size={tuple(size)}: must be (height, width) in whole pixels, at most '
      f'{LARGEST}, where a 0 leaves a side to the training images'
    )


def check_given(size: Sequence[int]) -> None:
  """Refuses a size with an open side, for who plans before images are read.

  Raises:
    UserError: names the key.
  """
  if not all(size):
    raise UserError(f'config.data.image_size={tuple(size)}: give both sides to this command')


def resolve(size: Sequence[int], own: np.ndarray) -> tuple[int, int]:
  """Returns the size with its open sides filled in.

  Args:
    size: (height, width) in pixels, 0 where a side is open.
    own: i64[N, 2], (height, width) of the training images.

  Raises:
    UserError: a side is open, and there are no training images.
  """
  height, width = size
  if height and width:
    return height, width
  if not len(own):
    raise UserError(
      f'config.data.image_size={tuple(size)}: there are no training images to take the size from; '
      'give both sides'
    )
  if not height and not width:
    height, width = (round(float(side)) for side in np.median(own, axis=0))
  elif not width:
    width = round(height * median_aspect(own))
  else:
    height = round(width / median_aspect(own))
  return max(1, height), max(1, width)


def aspects(sizes: np.ndarray) -> np.ndarray:
  """Returns width / height, f64[N], of sizes (height, width) i64[N, 2]."""
  ratios: np.ndarray = sizes[:, 1] / sizes[:, 0]
  return ratios


def median_aspect(sizes: np.ndarray) -> float:
  """Returns the median of width / height of sizes i64[N, 2], N >= 1."""
  return float(np.median(aspects(sizes)))


def resolved(config: ml_collections.ConfigDict, size: Sequence[int]) -> ml_collections.ConfigDict:
  """Returns the whole config, with the size (height, width) of its images where a side is open."""
  if all(config.data.image_size):
    return config
  config = config.copy_and_resolve_references()
  config.data.image_size = (int(size[0]), int(size[1]))
  return config


def stretch(aspect: float, sizes: np.ndarray) -> np.ndarray:
  """Returns how much images of sizes i64[N, 2] are stretched, f64[N], at least 1."""
  factors = aspects(sizes) / aspect
  return np.maximum(factors, 1 / factors)


def stretch_warnings(aspect: float, sizes: np.ndarray) -> list[tuple[str, ...]]:
  """Returns a warning for each image of sizes i64[N, 2] that is stretched."""
  return [
    (f'stretched {factor:.3g} times: aspect ratio {own:.4g}, of normal images {aspect:.4g}',)
    if factor > 1 + TOLERANCE
    else ()
    for own, factor in zip(aspects(sizes), stretch(aspect, sizes), strict=True)
  ]


def stretch_summary(aspect: float, sizes: np.ndarray, names: Sequence[str]) -> str | None:
  """Returns a warning of images whose aspect ratio is not that of the training images.

  All are resized to one size, so what they show is stretched; by more than TOLERANCE is said.

  Args:
    aspect: of the training images, width / height.
    sizes: i64[N, 2], (height, width) of the images in pixels.
    names: of the images.

  Returns:
    How many there are, and which is the worst; None where there is none.
  """
  factors = stretch(aspect, sizes)
  count = int(np.sum(factors > 1 + TOLERANCE))
  if not count:
    return None
  worst = int(np.argmax(factors))
  height, width = sizes[worst]
  return (
    f'{count} of {len(sizes)} images have another aspect ratio than the training images '
    f'({aspect:.4g}, width to height) and are stretched to their size; most of all {names[worst]}, '
    f'{width} x {height} pixels, {factors[worst]:.3g} times'
  )
