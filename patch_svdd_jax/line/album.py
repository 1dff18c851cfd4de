"""Pictures of what a line has found: masks, overlays, frames of a camera, those of the page."""

import pathlib
from typing import Any

import numpy as np

from patch_svdd_jax.data import Split, images
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.line.journal import number_of
from patch_svdd_jax.reporting import prediction_overlays
from patch_svdd_jax.reporting.html.predicted import HighestScores
from patch_svdd_jax.reporting.prediction_overlays import Which, is_drawn
from patch_svdd_jax.system import files

FRAMES = 'frames'


def title(name: str, number: int) -> str:
  """Returns what an image is called on the page, which may have several of one name."""
  return f'{name} #{number}'


class Album:
  """Draws in one thread; each picture is whole before the line that names it is written.

  Attributes:
    highest: what the page shows.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    limit: Limits,
    colours: tuple[float, float],
    which: Which,
    keep: Which = 'none',
  ):
    """Makes an album.

    Args:
      folder: of the results.
      limit: of the verdicts.
      colours: of `prediction_overlays.colour_limits`.
      which: images that masks and overlays are written of.
      keep: frames that are written as they came.
    """
    self.highest = HighestScores(colours)
    self._folder, self._limit, self._which, self._keep = folder, limit, which, keep

  def draw(
    self, item: Any, line: Prediction, split: Split, anomaly_map: np.ndarray, event_id: str
  ) -> dict[str, Any]:
    """Draws an image; returns what its record says of the pictures."""
    number, image, more = number_of(event_id), split.images[0], dict[str, Any]()
    height, width = line.size
    region = split.region_of(0)
    self.highest.take_one(title(line.name, number), line.score, image, anomaly_map, region)
    if is_drawn(line.alarm, self._which):
      name = pathlib.PurePosixPath(line.name)
      path = name.with_name(files.fitting(f'{name.stem}~{number}', '.png'))
      prediction_overlays.write_one(
        self._folder,
        path,
        image,
        (height, width),
        anomaly_map,
        self._limit.pixel.value,
        self.highest.limits,
        region,
      )
      more['picture'] = str(path)
    frame = getattr(item, 'frame', None)
    if frame is not None and is_drawn(line.alarm, self._keep):
      files.write(self._folder / FRAMES / line.name, images.encode_png(frame))
    return more
