"""Contenders in turns, on the same files: percentiles of one image at a time, and images/s."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from patch_svdd_jax.benchmarking import contenders, timing
from patch_svdd_jax.benchmarking.contenders import Once, Streamed
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system.batching import Progress

OURS = 'patch_svdd_jax'
# How far an image's score may be from ours, as a share of it. Ours is exact to the last digits of
# float32; others' distances are computed by float32 products, and ONNX Runtime convolves otherwise.
TOLERANCE = 1e-3
PERCENTILES = (50, 95, 99)
TOTAL = 'total'
# Rounds in which all files are scored as a stream, and the fewest of single images.
PASSES = 3
FEWEST = 5

# Calls a function of `contenders` with a contender and more arguments.
Ask = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Row:
  """Holds what was measured of one contender at one size.

  Attributes:
    contender: its name.
    size: (height, width) of the images that are scored.
    bank_rows: rows of all memory banks.
    images_per_s: of files in batches, decoded ahead; the median of `passes`.
    seconds_per_image: of each stage, in these passes; 'decode' is of a processor.
    alone: seconds of one image at a time, by 'total' or stage, then 'p50', 'p95', 'p99'.
    rounds: how many images were scored so.
    passes: how often files were streamed.
    files: how many, at a time.
    first_image_seconds: of the first one, which compiles.
    peak_memory: bytes that its process held at most, or its device where that says so.
    score_difference: the largest from our score of an image, as a share of it.
  """

  contender: str
  size: ImageSize
  bank_rows: int
  images_per_s: float
  seconds_per_image: dict[str, float]
  alone: dict[str, dict[str, float]]
  rounds: int
  passes: int
  files: int
  first_image_seconds: float
  peak_memory: int
  score_difference: float


def percentiles(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
  """Returns 'p50', 'p95' and 'p99', between samples by their distance from them."""
  found = np.percentile(seconds, PERCENTILES)
  return {f'p{p}': float(value) for p, value in zip(PERCENTILES, found, strict=True)}


def of_each_stage(images: Sequence[Once]) -> dict[str, dict[str, float]]:
  """Returns the percentiles of the whole and of each stage."""
  stages = images[0].stages
  return {TOTAL: percentiles([each.seconds for each in images])} | {
    stage: percentiles([each.stages[stage] for each in images]) for stage in stages
  }


def until(numbers: Iterable[int], seconds: float, fewest: int) -> Iterator[int]:
  """Yields numbers until so many seconds have passed, but the fewest that are wanted."""
  end = time.perf_counter() + seconds
  for count, number in enumerate(numbers):
    if count >= fewest and time.perf_counter() > end:
      return
    yield number


def difference(name: str, scores: np.ndarray, ours: np.ndarray) -> float:
  """Returns the largest difference of scores f32[N] from ours, as a share of these.

  Raises:
    UserError: it is above TOLERANCE.
  """
  ours = ours.astype(np.float64)
  shares = np.abs(scores - ours) / np.maximum(np.abs(ours), np.finfo(np.float32).tiny)
  # Not `>`: a NaN is no agreement.
  if not (shares <= TOLERANCE).all():
    worst = int(np.argmax(np.where(np.isnan(shares), np.inf, shares)))
    raise UserError(
      f'{name} gives image {worst} the score {scores[worst]:.9g} where {OURS} gives '
      f'{ours[worst]:.9g}, which is more than {TOLERANCE:g} of it away: nothing was timed'
    )
  return float(shares.max())


def measure(
  asks: Mapping[str, Ask],
  files: Sequence[Source],
  *,
  size: ImageSize,
  bank_rows: int,
  batch: int,
  rounds: int,
  seconds: float,
  progress: Progress = iter,
  ours: np.ndarray | None = None,
) -> tuple[list[Row], np.ndarray]:
  """Times contenders in turns, once they are compiled and their scores agree.

  Args:
    asks: by name of the contender; OURS is the first, or `ours` are given.
    files: to be scored; streamed are only the first `batch` where all would take too long.
    size: that they are scored at, for the rows.
    bank_rows: for the rows, too.
    batch: files that are scored, and compared, before anybody is timed.
    rounds: of single images.
    seconds: after which rounds end, and passes; a pass of all files has to fit.
    progress: wraps the numbers of the rounds.
    ours: our scores f32[batch], where OURS takes no part.

  Returns:
    The rows, and our scores.

  Raises:
    UserError: contenders disagree.
  """
  first = {name: ask(contenders.one, files[0]) for name, ask in asks.items()}
  warm = {name: ask(contenders.stream, files[:batch]) for name, ask in asks.items()}
  if ours is None:
    ours = warm[OURS].scores
  apart = {name: difference(name, found.scores, ours) for name, found in warm.items()}
  alone: dict[str, list[Once]] = {name: [] for name in asks}
  passes: dict[str, list[Streamed]] = {name: [] for name in asks}

  def score_next(name: str, sources: Iterator[Source]) -> None:
    alone[name].append(asks[name](contenders.one, next(sources)))

  singles = {name: functools.partial(score_next, name, itertools.cycle(files)) for name in asks}
  timing.interleave(singles, until(progress(range(rounds)), seconds, FEWEST))
  slowest = max(float(np.median([each.seconds for each in found])) for found in alone.values())
  streamed = files if slowest * len(files) <= seconds else files[:batch]

  def score_all(name: str) -> None:
    passes[name].append(asks[name](contenders.stream, streamed))

  whole = {name: functools.partial(score_all, name) for name in asks}
  timing.interleave(whole, until(range(PASSES), seconds, 1))
  rows = [
    Row(
      contender=name,
      size=size,
      bank_rows=bank_rows,
      images_per_s=len(streamed) / float(np.median([each.seconds for each in passes[name]])),
      seconds_per_image={
        stage: float(np.median([each.stages[stage] for each in passes[name]]))
        for stage in passes[name][0].stages
      },
      alone=of_each_stage(alone[name]),
      rounds=len(alone[name]),
      passes=len(passes[name]),
      files=len(streamed),
      first_image_seconds=first[name].seconds,
      peak_memory=ask(contenders.peak),
      score_difference=apart[name],
    )
    for name, ask in asks.items()
  ]
  return rows, ours
