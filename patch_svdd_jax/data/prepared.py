"""Prepares a data set once, and reads what was prepared."""

import concurrent.futures
import contextlib
import functools
import importlib.util
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from google.protobuf import json_format

from patch_svdd_jax.data import appearance, entries, images, layout, shared_entries
from patch_svdd_jax.data.builder import Builder
from patch_svdd_jax.data.dataset import Split
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.system.batching import Bar
from patch_svdd_jax.system.store import Store

_NOWHERE = '.nothing'  # a folder that there is not
_ATTEMPTS = 3

MakeBuilder = Callable[[pathlib.Path], Builder]  # whose files are in a folder


@contextlib.contextmanager
def prepare(
  make: MakeBuilder, folder: pathlib.Path, bound: float, shared: Store | None = None
) -> Iterator[Builder]:
  """Prepares a data set unless a copy of that content is there, and keeps it while it is read.

  Files are written to a folder that gets its final name when it is complete. Of several processes
  one prepares and the others wait; what a killed one left behind is removed.

  Args:
    make: gives a builder, whose info says what is prepared at that moment.
    folder: of prepared data.
    bound: bytes that it may have; beyond them, whatever was not used for longest is removed once
      something is prepared anew.
    shared: a store from which what another machine has prepared is fetched, and to which what is
      prepared here is uploaded.

  Yields:
    A builder to read from.

  Raises:
    UserError: where the source is at fault or the prepared files cannot be written.
  """
  check_format()
  source = make(folder / _NOWHERE)
  if shared and not source.is_given():
    fetch_all(shared, folder, source.qualified_name)
  entry, fingerprint = _entry_of(source, folder)
  try:
    lock, builder, written = _prepared(
      functools.partial(make, entry), entry, source, fingerprint, shared
    )
  except (OSError, RuntimeError) as error:
    raise UserError(
      f'{entry}: cannot be written ({error}); make room there or set config.data.prepared to '
      'another folder'
    ) from error
  with lock:
    entries.touch(entry)
    if written:
      _make_room(folder, bound)
    yield builder


def fetch_all(shared: Store, folder: pathlib.Path, qualified_name: str) -> None:
  """Fetches what a store has of a data set and category, unless it is there.

  Raises:
    UserError: the store cannot be read.
  """
  for name in shared_entries.names(shared, qualified_name):
    if folder / name not in entries.newest(folder, qualified_name):
      with entries.alone(folder / name):
        shared_entries.fetch(shared, folder / name)


def _upload(shared: Store, entry: pathlib.Path) -> None:
  """Uploads what was prepared; one who may only read there works with what is here."""
  try:
    shared_entries.upload(shared, entry)
  except UserError as error:
    logging.warning('what was prepared is not shared: %s', error)


def _make_room(folder: pathlib.Path, bound: float) -> None:
  removed = [entry for entry in entries.evict(folder, bound) if entry.finished]
  if removed:
    logging.warning(
      'removed what was prepared of %s and not used for longest, %d MB, to stay within '
      'config.data.cache_gib=%g',
      ', '.join(one_line(entry.source) for entry in removed),
      sum(entry.size for entry in removed) / 1e6,
      bound / 2**30,
    )


def _entry_of(source: Builder, folder: pathlib.Path) -> tuple[pathlib.Path, str | None]:
  """Returns the entry of the source's content and its fingerprint, or that which was used last.

  Raises:
    UserError: the source cannot be read, or there is none and nothing is prepared of it.
  """
  found = [] if source.is_given() else entries.newest(folder, source.qualified_name)
  if len(found) > 1:
    logging.warning(
      '%d copies of %s are prepared: the one that was used last is read, %s; set config.data.root '
      'to choose, or remove the others with patch-svdd cache --clear NAME',
      *(len(found), source.qualified_name, found[0]),
    )
  if found:
    return found[0], None
  fingerprint = source.fingerprint()
  return folder / entries.name(
    source.qualified_name, f'{source.version} {fingerprint}'
  ), fingerprint


def _prepared(
  make: Callable[[], Builder],
  entry: pathlib.Path,
  source: Builder,
  fingerprint: str | None,
  shared: Store | None,
) -> tuple[IO[str], Builder, bool]:
  """Returns the shared lock of an entry, its builder, and whether it was prepared anew.

  Raises:
    OSError, RuntimeError: it cannot be written.
    UserError: the source is at fault.
  """
  written = False
  for _ in range(_ATTEMPTS):
    lock = entries.shared(entry)
    if builder := _current(make, fingerprint):
      return lock, builder, written
    lock.close()
    with entries.alone(entry):
      if not _current(make, fingerprint):
        if not (shared and shared_entries.fetch(shared, entry) and _current(make, fingerprint)):
          _write(make, entry, fingerprint or source.fingerprint())
          if shared:
            _upload(shared, entry)
        written = True
  raise RuntimeError('it is gone or damaged as soon as it is written')


def _current(make: Callable[[], Builder], fingerprint: str | None) -> Builder | None:
  """Returns a builder of what is prepared of a content; None where it is not there as asked.

  The descriptions of what is prepared are read here, and may be damaged.
  """
  try:
    builder = make()
    stored = builder.info.metadata.get('fingerprint')
    whole = builder.is_prepared() and builder.has_range()
    if whole:
      builder.stored_report()
    return builder if whole and fingerprint in (None, stored) else None
  except (json_format.ParseError, ValueError, LookupError, TypeError, AttributeError):
    return None


def _write(make: Callable[[], Builder], entry: pathlib.Path, fingerprint: str) -> None:
  """Prepares an entry that is locked, in place of what is there; where that fails, none is left."""
  entries.empty(entry)
  try:
    make().write(fingerprint)
  except BaseException:
    with contextlib.suppress(OSError):
      entries.discard(entry)
    raise


def check_format() -> None:
  """Refuses to prepare or read images where the library of the files' format is missing.

  Raises:
    UserError: says so.
  """
  if importlib.util.find_spec('array_record') is None:
    raise UserError(
      'array_record is missing, which prepared images are kept by, and which has no release for '
      'Windows: run this command under WSL 2, Linux or macOS; predict, watch, serve and export '
      'work without, as does PatchSVDD.fit on arrays'
    )


def read_sizes(builder: Builder, split: str) -> np.ndarray:
  """Reads i64[N, 2], the (height, width) of a split's images, from their headers."""
  if split not in builder.info.splits:
    return np.zeros((0, 2), np.int64)
  raw = tfds.decode.SkipDecoding()
  source: Any = builder.as_data_source(split, decoders={'image': raw, 'mask': raw})
  found = [images.stored_size(record['image'], os.fsdecode(record['name'])) for record in source]
  return np.array([(height, width) for width, height in found], np.int64).reshape(-1, 2)


def read_split(builder: Builder, split: str, size: tuple[int, int], resample: str) -> Split:
  """Reads a split and brings its images to one size.

  Args:
    builder: prepared.
    split: 'train' or 'test'; a split that was not prepared has no images.
    size: (height, width) in pixels.
    resample: a key of `images.FILTERS`; masks are resized by nearest neighbour.

  Returns:
    The split, in the order of its files.

  Raises:
    UserError: the prepared files are damaged.
  """
  # Decoding is ours: TFDS decodes with OpenCV where that is installed, to other pixels.
  raw = tfds.decode.SkipDecoding()
  source: Any = []
  if split in builder.info.splits and builder.info.splits[split].num_examples:
    source = builder.as_data_source(split, decoders={'image': raw, 'mask': raw})
  pixels = np.zeros((len(source), *size, 3), np.uint8)
  masks = np.zeros((len(source), *size), bool)
  sizes = np.zeros((len(source), 2), np.int64)
  looks = np.zeros((len(source), len(appearance.NAMES)), np.float32)
  lock = threading.Lock()  # the reader's threads are its own business; one call at a time

  def fill(index: int) -> dict[str, Any]:
    with lock:
      record: dict[str, Any] = source[index]
    image = images.decode_normalised(record.pop('image'))
    mask = images.decode_normalised(record.pop('mask')) > 0
    sizes[index] = image.shape[:2]
    pixels[index] = images.resize_image(image, size, resample)
    looks[index] = appearance.image_statistics(pixels[index])
    masks[index] = images.resize_mask(mask, size)
    return record

  with concurrent.futures.ThreadPoolExecutor() as pool:
    done = pool.map(fill, range(len(source)))
    bar = Bar(
      done, total=len(source), desc=f'Loading {split}', unit='image', delay=0.5, leave=False
    )
    try:
      records = list(bar)
    # Whatever the reader, or Pillow, says of bytes that are not those that were written.
    except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
      raise UserError(
        f'{builder.data_dir} is damaged ({error}): remove that folder, and it is prepared anew'
      ) from error
  defects = tuple(os.fsdecode(record['defect']) for record in records)
  return Split(
    images=pixels,
    masks=masks,
    has_mask=np.array([record['has_mask'] for record in records], bool),
    labels=np.array([defect != layout.GOOD for defect in defects], bool),
    defects=defects,
    names=tuple(os.fsdecode(record['name']) for record in records),
    sizes=sizes,
    appearance=looks,
    digests=tuple(record['digest'].decode() for record in records),
  )
