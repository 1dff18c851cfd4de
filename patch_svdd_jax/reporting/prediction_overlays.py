"""Pictures of what was found in images: masks of the file's size, and overlays."""

import pathlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from patch_svdd_jax.data import Split, images
from patch_svdd_jax.detection.calibration import Calibration
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.reporting import overlays
from patch_svdd_jax.system import files

MASKS, OVERLAYS = PLACES = ('masks', 'overlays')

Which = Literal['alarms', 'all', 'none']


def colour_limits(calibration: Calibration, threshold: float) -> tuple[float, float]:
  """Returns the scale of all pictures: from the normal pixels' median, threshold in the middle."""
  low = float(calibration.levels[np.argmax(calibration.shares <= 0.5)])
  return low, 2 * max(threshold, low) - low


def is_drawn(alarm: bool | None, which: Which) -> bool:
  """Returns whether an image with or without an alarm has pictures."""
  return which == 'all' or (which == 'alarms' and bool(alarm))


def write(
  folder: pathlib.Path,
  paths: Mapping[str, pathlib.PurePosixPath],
  split: Split,
  found: Inspection,
  threshold: float,
  limits: tuple[float, float],
  which: Which,
) -> None:
  """Writes the pictures of a batch; each appears whole.

  Args:
    folder: of the results.
    paths: of the pictures of each image, below MASKS and OVERLAYS.
    split: the images.
    found: in them.
    threshold: for pixels: a mask is True above it.
    limits: of `colour_limits`.
    which: 'alarms', 'all' or 'none' of the images.

  Raises:
    UserError: the disk is full, or the folder cannot be written.
  """
  for index, name in enumerate(split.names):
    if not is_drawn(found.alarms[index], which):
      continue
    mask, (height, width) = found.maps[index] > threshold, split.sizes[index]
    full = images.resize_mask(mask, (int(height), int(width)))
    files.write(folder / MASKS / paths[name], images.encode_png(full))
    overlays.write_overlay(
      folder / OVERLAYS / paths[name], split.images[index], mask, found.maps[index], limits
    )
