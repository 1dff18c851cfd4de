"""A detector, timed at several sizes beside its exported files and beside other searches."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from patch_svdd_jax.benchmarking import contenders, measuring, peers, preparation
from patch_svdd_jax.benchmarking.measuring import OURS, Row
from patch_svdd_jax.benchmarking.preparation import Facts
from patch_svdd_jax.benchmarking.processes import Worker, isolated
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system.batching import Progress

# What each contender needs beyond the package: modules, and what to give to `pip install`.
EXPORTS = {
  '.stablehlo': ((), ''),
  '.onnx': (('jax2onnx', 'onnxruntime'), "'patch_svdd_jax[onnx]'"),
}
SEARCHES = {name: ((peer.module,), peer.install) for name, peer in peers.PEERS.items()}
NEEDED: Mapping[str, tuple[tuple[str, ...], str]] = EXPORTS | SEARCHES


class Timing(NamedTuple):
  """How long to measure.

  Attributes:
    rounds: of single images, at most.
    seconds: after which the rounds of a size end.
    progress: makes what wraps the rounds of a size.
  """

  rounds: int
  seconds: float
  progress: Callable[[str], Progress]


def available(names: Sequence[str]) -> list[str]:
  """Returns the contenders beside ours that can take part; a line about each other."""
  return [name for name in names if peers.takes_part(name, *NEEDED[name])]


def measure_size(
  workdir: pathlib.Path,
  size: ImageSize,
  files: Sequence[Source],
  names: Sequence[str],
  folder: pathlib.Path,
  timing: Timing,
) -> tuple[list[Row], Facts]:
  """Times a saved detector on images of a size, beside others by their names.

  Args:
    workdir: of the detector.
    size: that images are resized to.
    files: of these.
    names: of `available`.
    folder: for exported files.
    timing: how long.

  Raises:
    UserError: the detector is not calibrated, a file cannot be read, or contenders disagree.
  """
  folder.mkdir(parents=True, exist_ok=True)
  exports = [name for name in names if name in EXPORTS]
  facts: Facts = isolated(preparation.prepare, workdir, size, folder, exports)
  for name, reason in facts.missing.items():
    print(f'{name} is left out ({reason})', file=sys.stderr)
  everyone = [OURS, *(name for name in names if name not in facts.missing)]
  # Where one process has the device, others wait for it.
  groups = [[name] for name in everyone] if facts.alone else [everyone]
  rows: list[Row] = []
  ours: np.ndarray | None = None
  for group in groups:
    with contextlib.ExitStack() as running:
      workers = {name: running.enter_context(Worker()) for name in group}
      for name, worker in workers.items():
        worker.keep(*recipe(name, workdir, size, folder, facts))
      found, ours = measuring.measure(
        {name: worker.ask for name, worker in workers.items()},
        files,
        size=size,
        bank_rows=facts.bank_rows,
        batch=int(facts.config.score.batch_size),
        rounds=timing.rounds,
        seconds=timing.seconds,
        progress=timing.progress(f'{size[0]} x {size[1]} pixels'),
        ours=ours,
      )
      rows += found
  return rows, facts


def recipe(
  name: str, workdir: pathlib.Path, size: ImageSize, folder: pathlib.Path, facts: Facts
) -> tuple[Any, ...]:
  """Returns the function that makes a contender, and its arguments."""
  if name == OURS:
    return contenders.make_ours, workdir, size
  if name in SEARCHES:
    return contenders.make_with_search, workdir, size, name
  make = {'.stablehlo': contenders.make_stablehlo, '.onnx': contenders.make_onnx}[name]
  return make, preparation.export_path(folder, name), facts.config


def measure_sizes(
  sizes: Sequence[ImageSize],
  workdir_at: Callable[[ImageSize], pathlib.Path],
  files_at: Callable[[ImageSize], Sequence[Source]],
  names: Sequence[str],
  folder: pathlib.Path,
  timing: Timing,
) -> tuple[list[Row], Facts]:
  """Times detectors at several sizes, one after another.

  Args:
    sizes: at least one.
    workdir_at: gives the workdir of the detector for a size.
    files_at: gives the files for it.
    names: of the others, of `available`.
    folder: for exported files.
    timing: how long.

  Returns:
    The rows, and what the detector for the last size is.
  """
  rows: list[Row] = []
  for size in sizes:
    place, files = folder / name_of(size), files_at(size)
    found, facts = measure_size(workdir_at(size), size, files, names, place, timing)
    rows += found
  return rows, facts


def untrained_at(folder: pathlib.Path, normal_images: int) -> Callable[[ImageSize], pathlib.Path]:
  """Returns a function that fits a detector of textures, which has learned nothing, for a size."""

  def fit(size: ImageSize) -> pathlib.Path:
    workdir = folder / name_of(size)
    isolated(preparation.fit_untrained, size, normal_images, workdir, folder / 'prepared')
    return workdir

  return fit


def textures_at(folder: pathlib.Path, count: int) -> Callable[[ImageSize], Sequence[Source]]:
  """Returns a function that writes so many files of textures for a size, and lists them."""

  def write(size: ImageSize) -> Sequence[Source]:
    place = folder / name_of(size) / 'images'
    written: list[Source] = isolated(
      preparation.write_textures, size, count, place, folder / 'prepared'
    )
    return written

  return write


def name_of(size: ImageSize) -> str:
  """Returns what the folder for a size is called."""
  return f'{size[0]}x{size[1]}'
