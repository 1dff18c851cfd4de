"""Image files as batches, decoded ahead of who takes them; memory holds a few batches, not all."""

import collections
import concurrent.futures
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_collections

from patch_svdd_jax import data
from patch_svdd_jax.data import arrays, images
from patch_svdd_jax.data.dataset import Split, concatenate
from patch_svdd_jax.data.layout import natural_key
from patch_svdd_jax.errors import UserError

# Batches that are decoded, or being decoded, before they are asked for.
AHEAD = 2


class Source(NamedTuple):
  """An image file: its path, and its name, the path below the folder that all have in common."""

  name: str
  path: pathlib.Path


class Batch(NamedTuple):
  """Images that could be read, and of the others which and why.

  Attributes:
    split: the images, in the light of `data.light`; None if none could be read.
    failures: those that could not be read.
  """

  split: Split | None
  failures: list[tuple[Source, str]]


def find(places: Sequence[pathlib.Path]) -> list[Source]:
  """The images that files and folders name, in natural order, each once.

  Folders are searched to any depth, for files of the suffixes of images; hidden ones and linked
  folders, which may lead in a circle, are passed over. A file that is named itself is an image.

  Raises:
    UserError: a place is not there, or no image is.
  """
  found: dict[pathlib.Path, None] = {}
  for place in places:
    if place.is_dir():
      found.update(dict.fromkeys(_below(place)))
    elif place.exists():
      found[place.absolute()] = None
    else:
      raise UserError(f'{place}: no such file or folder')
  if not found:
    raise UserError(
      f'{", ".join(map(str, places))}: no images there ({", ".join(images.SUFFIXES)})'
    )
  root = os.path.commonpath([path.parent for path in found])
  sources = [Source(path.relative_to(root).as_posix(), path) for path in found]
  return sorted(sources, key=lambda source: natural_key(source.name))


def _below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  def refuse(error: OSError) -> None:
    raise UserError(f'{error.filename}: cannot be read ({error.strerror}); check it') from error

  for place, folders, files in os.walk(folder.absolute(), onerror=refuse):
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in files:
      if not name.startswith('.') and pathlib.Path(name).suffix.lower() in images.SUFFIXES:
        yield pathlib.Path(place, name)


def read(source: Source, config: ml_collections.ConfigDict) -> Split:
  """One image, resized and lit as `config` (config.data) says.

  Raises:
    UserError: the file is at fault; names it.
  """
  image = images.decode_image(images.read_bytes(source.path), str(source.path))
  return data.light(arrays.resized([image], config, [source.name]), config)


def batches(
  sources: Sequence[Source], size: int, config: ml_collections.ConfigDict
) -> Iterator[Batch]:
  """The images in their order, `size` files at a time, decoded by threads ahead of time.

  Args:
    sources: of `find`.
    size: files a batch.
    config: `config.data`.
  """

  def attempt(source: Source) -> Split | str:
    try:
      return read(source, config)
    except UserError as error:
      return str(error)

  remaining = iter(sources)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    waiting: collections.deque[tuple[Source, concurrent.futures.Future[Split | str]]]
    waiting = collections.deque()

    def fill() -> None:
      for source in itertools.islice(remaining, (1 + AHEAD) * size - len(waiting)):
        waiting.append((source, pool.submit(attempt, source)))

    try:
      fill()
      while waiting:
        taken = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        fill()
        yield _batch([(source, future.result()) for source, future in taken])
    finally:
      pool.shutdown(cancel_futures=True)


def _batch(results: Sequence[tuple[Source, Split | str]]) -> Batch:
  splits = [result for _, result in results if isinstance(result, Split)]
  failures = [(source, result) for source, result in results if isinstance(result, str)]
  return Batch(concatenate(splits) if splits else None, failures)
