"""How fast images become verdicts, in one line and in metrics.json."""

import time
from collections.abc import Mapping
from typing import Any

from patch_svdd_jax.detection.scores import STAGES


def summary(images_per_s: float, seconds: Mapping[str, float]) -> str:
  """Returns one line of images/s and of the milliseconds of each stage.

  Args:
    images_per_s: of all stages together.
    seconds: an image, by stage.
  """
  known = [stage for stage in STAGES if stage in seconds]
  stages = ', '.join(f'{stage} {digits(1e3 * seconds[stage])}' for stage in known)
  return f'{digits(images_per_s)} images/s; milliseconds an image: {stages}'


def to_json(images_per_s: float, seconds: Mapping[str, float]) -> dict[str, Any]:
  """Returns the figures of `summary`."""
  return {'images_per_s': images_per_s, 'seconds_per_image': dict(seconds)}


def one_after_another(seconds: Mapping[str, float]) -> float:
  """Returns the images/s where a stage begins when the one before it has ended."""
  return 1 / sum(seconds.values())


def digits(value: float) -> str:
  """Returns a number with three digits, or all those before the point."""
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


class Rate:
  """How fast batches are scored while files are decoded ahead, and pictures drawn behind.

  The first batch, which compiles, counts only where there is no other.
  """

  def __init__(self) -> None:
    """Begins now."""
    self._start = self._end = time.perf_counter()
    self._batches = self._images = self._files = 0
    self._first = self._decoding = 0.0
    self._stages: dict[str, float] = {}

  def decode(self, files: int, seconds: float) -> None:
    """Counts files, and the seconds of a processor that reading them took."""
    self._files += files
    self._decoding += seconds

  def score(self, images: int, seconds: Mapping[str, float]) -> None:
    """Counts a batch that was scored just now, with the seconds of its stages, an image."""
    now = time.perf_counter()
    if not self._batches:
      self._first = now - self._start
    if self._batches == 1:
      self._start, self._images, self._stages = self._end, 0, {}
    self._end = now
    self._batches += 1
    self._images += images
    for stage, each in seconds.items():
      self._stages[stage] = self._stages.get(stage, 0.0) + images * each

  def end(self) -> None:
    """Says that all is written."""
    self._end = time.perf_counter()

  def summary(self) -> str:
    """Returns one line; '' where nothing was scored."""
    if not self._batches:
      return ''
    wall = (self._end - self._start) / self._images
    seconds = {'decode': self._decoding / self._files}
    seconds |= {stage: total / self._images for stage, total in self._stages.items()}
    about = 'the first batch, which compiles, is all there is'
    if self._batches > 1:
      about = f'the first batch, which compiles, took {digits(self._first)} s and is not counted'
    return (
      f'{summary(1 / wall, seconds)}; {digits(1e3 * wall)} in all, with decoding and pictures '
      f'meanwhile ({about})'
    )
