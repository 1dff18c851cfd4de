"""Prepares a data set once, and reads what was prepared."""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from patch_svdd_jax.data import appearance, images, layout
from patch_svdd_jax.data.builder import Builder
from patch_svdd_jax.data.dataset import Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import Bar

_INCOMPLETE = 'incomplete.'  # TFDS's prefix of a folder that is still being written


def prepare(make_builder: Callable[[], Builder]) -> Builder:
  """Prepares a data set unless a current copy is there.

  Files are written to a folder that gets its final name when it is complete. Of several processes
  one prepares and the others wait; what a killed one left behind is removed.

  Args:
    make_builder: gives a new builder, whose info says what is prepared at that moment.

  Returns:
    A builder to read from.

  Raises:
    UserError: where the source is at fault or the prepared files cannot be written.
  """
  builder, current = _opened(make_builder)
  if current:
    return builder
  place = pathlib.Path(builder.data_dir)
  try:
    with _locked(place.parent):
      builder = make_builder()
      if not builder.is_current():
        _remove_leftovers(place)
        builder = make_builder()
        builder.download_and_prepare(file_format='array_record')
  except (OSError, RuntimeError) as error:
    raise UserError(
      f'{place}: cannot be written ({error}); make room there or set config.data.prepared to '
      'another folder'
    ) from error
  return builder


def _opened(make_builder: Callable[[], Builder]) -> tuple[Builder, bool]:
  """Returns a builder, and whether what is prepared is current.

  Raises:
    UserError: a description of what is prepared is damaged; TFDS reads it here.
  """
  try:
    builder = make_builder()
    return builder, builder.is_current()
  except (json_format.ParseError, json.JSONDecodeError) as error:
    raise UserError(
      f'a prepared data set is damaged ({error}): remove its folder from config.data.prepared, and '
      'it is prepared anew'
    ) from error


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Holds the folder's lock, which the system releases even if the process is killed."""
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / '.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _remove_leftovers(place: pathlib.Path) -> None:
  """Removes a stale copy, which first loses its name, and what was never completed."""
  if place.exists():
    place.rename(tempfile.mkdtemp(prefix=f'{_INCOMPLETE}stale_', dir=place.parent))
  for folder in place.parent.glob(f'{_INCOMPLETE}*'):
    shutil.rmtree(folder)


def read_sizes(builder: Builder, split: str) -> np.ndarray:
  """i64[N, 2], the (height, width) of a split's images, from their headers."""
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
  if split in builder.info.splits:
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
