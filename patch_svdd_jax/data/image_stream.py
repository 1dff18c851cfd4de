"""Image files as batches, decoded ahead of who takes them; memory holds a few batches, not all."""

import collections
import concurrent.futures
import itertools
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import arrays, images, value_range
from patch_svdd_jax.data import region as region_of_interest
from patch_svdd_jax.data.dataset import Split, concatenate
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.digests import digest_bytes
from patch_svdd_jax.system.shares import Shares

# Batches that are decoded, or being decoded, before they are asked for.
AHEAD = 2
# Of all files that are being decoded: a pixel takes some 10 bytes meanwhile. A file that has more
# is decoded alone.
PIXELS, BYTES = 10**8, 2**28


class Batch(NamedTuple):
  """Images that could be read, and of the others which and why.

  Attributes:
    split: the images, in the light of `data.light`; None if none could be read.
    failures: those that could not be read.
    seconds: of a processor, that reading all of them took.
  """

  split: Split | None
  failures: list[tuple[Source, str]]
  seconds: float


class Room:
  """The memory that decoding may take, shared by the threads that do it."""

  def __init__(self) -> None:
    self.pixels, self.bytes = Shares(PIXELS), Shares(BYTES)


def read(
  source: Source,
  config: ml_collections.ConfigDict,
  room: Room | None = None,
  region: np.ndarray | None = None,
) -> Split:
  """Returns one image, resized and lit as `config` says, once there is room for it.

  Args:
    source: its file.
    config: `config.data`.
    room: that decoding may take.
    region: bool[H, W], that all images have in common; None: see `region_of_interest.attach`.

  Raises:
    UserError: the file is at fault; names it.
  """
  name, room = str(source.path), room or Room()
  # Always in this order, so that no two wait for each other.
  with room.bytes.take(_size(source.path)):
    content = images.read_bytes(source.path)
    width, height = images.stored_size(content, name)
    with room.pixels.take(width * height):
      image = images.decode_image(content, name, value_range.of(config))
      split = arrays.resized([image], config, [source.name], [digest_bytes(content)])
  return data.light(region_of_interest.attach(split, source.path, config, region), config)


def _size(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except OSError:
    return 0  # its reader says what is wrong


def attempt(
  source: Source,
  config: ml_collections.ConfigDict,
  room: Room | None = None,
  region: np.ndarray | None = None,
) -> Split | str:
  """Returns one image as `read` does, or why there is none: a file's fault ends with that file."""
  try:
    return read(source, config, room, region)
  except UserError as error:
    return str(error)
  except Exception as error:  # a decoder met what it does not expect, or had too little memory
    logging.getLogger(__name__).debug('%s', source.path, exc_info=True)
    return (
      f'{source.path}: cannot be decoded ({type(error).__name__}: {error}); replace or remove it'
    )


def batches(
  sources: Sequence[Source],
  size: int,
  config: ml_collections.ConfigDict,
  region: np.ndarray | None = None,
) -> Iterator[Batch]:
  """Yields the images in their order, `size` files at a time, decoded by threads ahead of time.

  Args:
    sources: of `file_search.find`.
    size: files a batch.
    config: `config.data`.
    region: see `read`.
  """
  remaining, room = iter(sources), Room()
  with concurrent.futures.ThreadPoolExecutor() as pool:
    waiting: collections.deque[tuple[Source, concurrent.futures.Future[tuple[Split | str, float]]]]
    waiting = collections.deque()

    def fill() -> None:
      for source in itertools.islice(remaining, (1 + AHEAD) * size - len(waiting)):
        waiting.append((source, pool.submit(_timed, source, config, room, region)))

    try:
      fill()
      while waiting:
        taken = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        fill()
        yield _batch([(source, future.result()) for source, future in taken])
    finally:
      pool.shutdown(cancel_futures=True)


def _timed(
  source: Source, config: ml_collections.ConfigDict, room: Room, region: np.ndarray | None
) -> tuple[Split | str, float]:
  """Returns what `attempt` does, and the seconds of a processor that it took.

  Those of the wall would count what the thread waits for: room, and whoever else computes.
  """
  start = time.thread_time()
  with jax.profiler.TraceAnnotation('decode'):
    found = attempt(source, config, room, region)
  return found, time.thread_time() - start


def _batch(results: Sequence[tuple[Source, tuple[Split | str, float]]]) -> Batch:
  splits = [result for _, (result, _) in results if isinstance(result, Split)]
  failures = [(source, result) for source, (result, _) in results if isinstance(result, str)]
  seconds = sum(seconds for _, (_, seconds) in results)
  return Batch(concatenate(splits) if splits else None, failures, seconds)
