"""The page of a prediction: images of which nothing is known but what was found.

However many images there are, memory holds the pictures of those that are shown.
"""

import array
import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split, image_stream
from patch_svdd_jax.data.image_stream import Source
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.html import gallery, pictures, run_facts
from patch_svdd_jax.reporting.html.page import UNKNOWN, Item, Page
from patch_svdd_jax.reporting.html.pictures import View
from patch_svdd_jax.reporting.predictions import Failure, Line


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
      entry = float(found.scores[index]), name
      if len(self._heap) < self._most:
        heapq.heappush(self._heap, entry)
      elif entry > self._heap[0]:
        del self.views[heapq.heapreplace(self._heap, entry)[1]]
      else:
        continue
      self.views[name] = pictures.views(split.images[index], None, found.maps[index], self.limits)


def make(
  lines: Iterable[Line],
  highest: HighestScores,
  sources: Sequence[Source],
  config: ml_collections.ConfigDict,
  *,
  title: str,
  map_name: str,
  threshold: Threshold,
  warnings: Sequence[str] = (),
  most: int = gallery.MOST_ITEMS,
) -> Page:
  """The page of `most` images at most, those of the highest scores.

  Args:
    lines: of all images.
    highest: pictures; an image that was scored before the run was stopped has none.
    sources: the files of all images.
    config: the detector's whole config.
    title: of the page.
    map_name: which map gives the scores.
    threshold: of the verdicts.
    warnings: what a reader should know first.
    most: images.
  """
  scores, failures = array.array('d'), []

  def scored() -> Iterator[Prediction]:
    for line in lines:
      if isinstance(line, Failure):
        failures.append(line.name)
        continue
      scores.append(line.score)
      yield line

  shown = heapq.nlargest(most, scored(), key=lambda found: (found.score, found.name))
  paths = {source.name: source for source in sources}
  if failures:
    files = 'file' if len(failures) == 1 else 'files'
    unreadable = f'{len(failures):,} {files} could not be read: results.csv says why'
    warnings = [*warnings, unreadable]
  return Page(
    title=title,
    items=[
      Item(**vars(found), views=views_of(found.name, highest, paths, config.data))
      for found in shown
    ],
    scores={UNKNOWN: np.array(scores)} if scores else {},
    map_name=map_name,
    limits=highest.limits,
    threshold=threshold,
    warnings=warnings,
    settings=run_facts.settings(config),
  )


def views_of(
  name: str,
  highest: HighestScores,
  paths: Mapping[str, Source],
  config: ml_collections.ConfigDict,
) -> Callable[[], Sequence[View]]:
  """Makes the pictures of an image: those that are there, or the image alone."""
  if name in highest.views:
    return lambda: highest.views[name]
  # A run goes on with the results that it has, also of images that are not asked for any more.
  if name not in paths:
    return lambda: [View('image', text='not among the images any more')]
  return functools.partial(photograph, paths[name], config)


def photograph(source: Source, config: ml_collections.ConfigDict) -> list[View]:
  """The picture of an image whose map was not kept, read again; `config` is config.data."""
  try:
    [image] = image_stream.read(source, config).images
  except UserError as error:
    return [View('image', text=str(error))]
  blank = np.zeros(image.shape[:2], np.float32)
  first, *_ = pictures.views(image, None, blank, (0.0, 1.0))
  return [first, View('anomaly map', text='scored before the run was stopped')]
