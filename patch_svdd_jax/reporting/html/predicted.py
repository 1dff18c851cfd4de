"""The page of a prediction: images of which nothing is known but what was found.

However many images there are, memory holds the pictures of those that are shown.
"""

import array
import functools
import heapq
from collections.abc import Iterable, Iterator, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.reporting.html import gallery, pictures, run_facts
from patch_svdd_jax.reporting.html.page import UNKNOWN, Item, Page
from patch_svdd_jax.reporting.html.pictures import View
from patch_svdd_jax.reporting.prediction_lines import Failure, Line


class HighestScores:
  """The pictures of the images of the highest scores that have come so far.

  Attributes:
    limits: (low, high) of the colour scale.
    views: of each of them, by its name.
  """

  def __init__(self, limits: tuple[float, float], most: int = gallery.MOST_ITEMS):
    self.limits = limits
    self.views: dict[str, list[View]] = {}
    self._most = most
    self._heap: list[tuple[float, str]] = []

  def take(self, split: Split, found: Inspection) -> None:
    """Takes some images and what was found in them."""
    for index, name in enumerate(split.names):
      score, region = float(found.scores[index]), split.region_of(index)
      self.take_one(name, score, split.images[index], found.maps[index], region)

  def take_one(
    self,
    name: str,
    score: float,
    image: np.ndarray,
    anomaly_map: np.ndarray,
    region: np.ndarray | None = None,
  ) -> None:
    """Takes an image u8[H, W, 3] with its map f32[H, W]; no other has its name."""
    entry = score, name
    if len(self._heap) < self._most:
      heapq.heappush(self._heap, entry)
    elif entry > self._heap[0]:
      del self.views[heapq.heapreplace(self._heap, entry)[1]]
    else:
      return
    self.views[name] = pictures.views(image, None, anomaly_map, self.limits, region)


def shown(lines: Iterable[Line], most: int = gallery.MOST_ITEMS) -> list[Prediction]:
  """Returns what the page shows: the `most` highest scores, the highest first."""
  scored = (line for line in lines if isinstance(line, Prediction))
  return heapq.nlargest(most, scored, key=lambda found: (found.score, found.name))


def make(
  lines: Iterable[Line],
  highest: HighestScores,
  config: ml_collections.ConfigDict,
  *,
  title: str,
  map_name: str,
  threshold: Threshold,
  warnings: Sequence[str] = (),
  most: int = gallery.MOST_ITEMS,
) -> Page:
  """Returns the page of `most` images at most, those of the highest scores.

  Args:
    lines: of all images.
    highest: pictures of what is shown; an image that cannot be read any more has none.
    config: the detector's whole config.
    title: of the page.
    map_name: which map gives the scores.
    threshold: of the verdicts.
    warnings: what a reader should know first.
    most: images.
  """
  scores, failures = array.array('d'), 0

  def noted() -> Iterator[Line]:
    nonlocal failures
    for line in lines:
      if isinstance(line, Failure):
        failures += 1
      else:
        scores.append(line.score)
      yield line

  found = shown(noted(), most)
  if failures:
    files = 'file' if failures == 1 else 'files'
    warnings = [*warnings, f'{failures:,} {files} could not be read: results.csv says why']
  return Page(
    title=title,
    items=[
      Item(**vars(each), views=functools.partial(views_of, highest, each.name)) for each in found
    ],
    scores={UNKNOWN: np.array(scores)} if scores else {},
    map_name=map_name,
    limits=highest.limits,
    threshold=threshold,
    warnings=warnings,
    settings=run_facts.settings(config),
  )


def views_of(highest: HighestScores, name: str) -> Sequence[View]:
  """Returns the pictures of an image."""
  return highest.views.get(name) or [View('image', text='cannot be read any more')]
