"""Seconds to score one image and peak memory, by the procedure of MVTec AD 2's runtime table.

MVTec's `measure_runtime_and_memory.py` gives a model images of random pixels one by one, from the
host's memory, and waits for each anomaly map to be there again: 1,000 times on a CPU; on a GPU as
often to warm up besides. Of these it reports mean, standard deviation, minimum and maximum, and of
a GPU the peak memory. Here the first runs warm up on every device, because the first one compiles.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from patch_svdd_jax.benchmarking import contenders, machine
from patch_svdd_jax.benchmarking.measuring import FEWEST, until
from patch_svdd_jax.benchmarking.processes import Worker
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.reporting.speed import digits
from patch_svdd_jax.reporting.table import Column, Table
from patch_svdd_jax.system import devices
from patch_svdd_jax.system.batching import Progress

# (height, width) of the images of MVTec's table, and how often each is scored.
SIZES: tuple[ImageSize, ...] = ((256, 256), (512, 512), (1024, 1224))
RUNS = 1000
# Share of a size's seconds that warming up may take, and its fewest runs: the first one compiles.
WARMING, FEWEST_WARMING = 0.1, 2


class Limits(NamedTuple):
  """Number of times that an image is scored.

  Attributes:
    runs: that are timed, and as many before them to warm up, at most.
    seconds: after which the runs of a size end.
    progress: makes what wraps the runs of a size.
  """

  runs: int
  seconds: float
  progress: Callable[[str], Progress]


@dataclasses.dataclass(frozen=True)
class Runtime:
  """Holds what was measured at one size.

  Attributes:
    size: (height, width) of the images.
    bank_rows: rows of all memory banks.
    warm_up: runs that were not counted.
    runs: that were.
    mean, std, min, max: of their seconds; std is that of all runs, not of a sample.
    peak_memory: bytes that the process held at most, or its device where that says so.
  """

  size: ImageSize
  bank_rows: int
  warm_up: int
  runs: int
  mean: float
  std: float
  min: float
  max: float
  peak_memory: int


class About(NamedTuple):
  """The timed detector's config and rows, and the device in words."""

  config: ml_collections.ConfigDict
  bank_rows: int
  device: str


def measure_size(
  workdir: pathlib.Path, size: ImageSize, limits: Limits
) -> tuple[Runtime, ml_collections.ConfigDict, str]:
  """Times a saved detector in a process of its own.

  Returns:
    What was measured, the detector's config, and the device in words.

  Raises:
    UserError: there is no detector, or it does not take images of that size.
  """
  with Worker() as worker:
    worker.keep(load, workdir, size)
    about: About = worker.ask(describe)

    def run(numbers: Iterable[int]) -> list[float]:
      return [worker.ask(once, number) for number in numbers]

    bar = limits.progress(f'{size[0]} x {size[1]} pixels')
    warm_up = run(until(range(limits.runs), WARMING * limits.seconds, FEWEST_WARMING))
    seconds = run(until(bar(range(limits.runs)), limits.seconds, FEWEST))
    peak: int = worker.ask(contenders.peak)
  found = Runtime(
    size,
    about.bank_rows,
    len(warm_up),
    len(seconds),
    float(np.mean(seconds)),
    float(np.std(seconds)),
    min(seconds),
    max(seconds),
    peak,
  )
  return found, about.config, about.device


def load(workdir: pathlib.Path, size: ImageSize) -> Detector:
  """Loads a detector for images of a size."""
  devices.check()
  return contenders.load(workdir, size)


def describe(detector: Detector) -> About:
  """Returns what is timed."""
  rows = sum(bank.size for bank in detector.banks.values())
  return About(detector.config, rows, machine.device_name())


def once(detector: Detector, seed: int) -> float:
  """Returns the seconds from an image of random pixels to its maps, both in the host's memory."""
  size = tuple(detector.config.data.image_size)
  image = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), dtype=np.uint8)
  start = time.perf_counter()
  detector.score(image)
  return time.perf_counter() - start


COLUMNS = (
  Column('pixels', 'pixels'),
  Column('bank_rows', 'patches', ',d'),
  Column('runs', 'runs', ',d'),
  *(Column(name, f'{name}, ms') for name in ('mean', 'std', 'min', 'max')),
  Column('peak', 'peak MiB', ',.0f'),
)


def table(rows: Iterable[Runtime]) -> str:
  """Returns a line about each size, in Markdown."""
  return Table(COLUMNS, list(map(_cells, rows))).to_markdown()


def _cells(row: Runtime) -> dict[str, Any]:
  return {
    'pixels': f'{row.size[0]} x {row.size[1]}',
    'bank_rows': row.bank_rows,
    'runs': row.runs,
    **{name: digits(1e3 * getattr(row, name)) for name in ('mean', 'std', 'min', 'max')},
    'peak': row.peak_memory / 2**20,
  }


def notes(rows: Iterable[Runtime], device: str) -> str:
  """Returns what the figures are, in lines."""
  counts = ', '.join(
    f'{row.size[0]} x {row.size[1]}: {row.runs:,} runs after {row.warm_up:,} to warm up'
    for row in rows
  )
  return (
    f'One image of random pixels at a time, from memory to its maps in memory. {counts}. Peak '
    f'memory is of the process, or of the device where that says so.\n{device}'
  )
