"""Where an image is anomalous: the connected regions of its map above a threshold."""

from typing import NamedTuple

import numpy as np
from skimage import measure

from patch_svdd_jax.models.geometry import ImageSize


class Region(NamedTuple):
  """One region, in pixels of the image as it was before it was resized.

  Attributes:
    box: (left, top, width, height), the smallest that holds it; at least 1 x 1.
    area: square pixels.
    score: the map's largest value in it.
  """

  box: tuple[int, int, int, int]
  area: int
  score: float


def find(anomaly_map: np.ndarray, threshold: float, size: ImageSize) -> tuple[Region, ...]:
  """Returns the 8-connected regions above the threshold, the highest score first.

  Args:
    anomaly_map: f32[H, W].
    threshold: a region's values are above it.
    size: (height, width) of the image that was resized to H x W, in pixels.
  """
  labels = measure.label(anomaly_map > threshold, connectivity=2)
  rows, columns = (side / of_map for side, of_map in zip(size, labels.shape, strict=True))
  found = []
  for region in measure.regionprops(labels, intensity_image=anomaly_map):
    top, left, bottom, right = region.bbox
    y, x = int(np.floor(top * rows)), int(np.floor(left * columns))
    height, width = int(np.ceil(bottom * rows)) - y, int(np.ceil(right * columns)) - x
    area = max(1, round(float(region.area) * rows * columns))
    found.append(Region((x, y, width, height), area, float(region.intensity_max)))
  return tuple(sorted(found, key=lambda region: -region.score))
