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
    if is_drawn(found.alarms[index], which):
      size = (int(split.sizes[index, 0]), int(split.sizes[index, 1]))
      image, anomaly_map = split.images[index], found.maps[index]
      region = split.region_of(index)
      write_one(folder, paths[name], image, size, anomaly_map, threshold, limits, region)


def write_one(
  folder: pathlib.Path,
  path: pathlib.PurePosixPath,
  image: np.ndarray,
  size: tuple[int, int],
  anomaly_map: np.ndarray,
  threshold: float,
  limits: tuple[float, float],
  region: np.ndarray | None = None,
) -> None:
  """Writes the pictures of one image u8[H, W, 3] with a map f32[H, W]; otherwise as `write`.

  Args:
    folder: of the results.
    path: of the pictures below MASKS and OVERLAYS.
    image: as it was scored.
    size: (height, width) of the file, which is the mask's.
    anomaly_map: of the image.
    threshold: for pixels.
    limits: of `colour_limits`.
    region: of interest, bool[H, W], if there is one.
  """
  mask = anomaly_map > threshold
  files.write(folder / MASKS / path, images.encode_png(images.resize_mask(mask, size)))
  overlays.write_overlay(folder / OVERLAYS / path, image, mask, anomaly_map, limits, region)
