"""The files that MVTec's benchmark server asks for of MVTec AD 2, and what it refuses.

  FOLDER/anomaly_images/CATEGORY/SPLIT/STEM.tiff              the map, float16
  FOLDER/anomaly_images_thresholded/CATEGORY/SPLIT/STEM.png   0 normal, 255 anomalous, 8 bits

for each image of `private_splits`, of all eight categories, of the image's own size, and nothing
besides. The rules are those of MVTec's own check (`check_and_prepare_data_for_upload.py` of
MVTecAD2_public_code_utils), and three that it leaves to its users: maps have the size of their
images, all their values are finite, and the thresholded image is the map above the level.

A map is scaled by a power of two, one for all images of a category, before its values are rounded
to the 11 bits of float16; what is above the largest float16 becomes that. Neither changes which of
two values is the higher one, but values may become equal.
"""

import math
import pathlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from patch_svdd_jax.data import images, private_splits
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection.calibration import Calibration
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import mvtec_maps
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import files
from patch_svdd_jax.system.batching import Progress

MAPS, THRESHOLDED = 'anomaly_images', 'anomaly_images_thresholded'
SUFFIXES = {MAPS: '.tiff', THRESHOLDED: '.png'}


class Encoding(NamedTuple):
  """Conversion of a category's maps to files.

  Attributes:
    scale: a power of two that maps are multiplied by.
    level: a float16 above which a value of a file is called anomalous.
  """

  scale: float
  level: float


def encoding(calibration: Calibration, threshold: float) -> Encoding:
  """Returns the encoding by which the highest value of a normal pixel lies in [.5, 1).

  So the normal range of float16 has all that is above 2^-14 of it, and up to 65504 times it.

  Args:
    calibration: of the detector that makes the maps.
    threshold: above which a value of a map is called anomalous.
  """
  scale = math.ldexp(1.0, -math.frexp(float(calibration.levels[-1]))[1])
  level = np.float16(scale * threshold)
  # Rounded down: no float16 lies between both, so the same values are above.
  if float(level) > scale * threshold:
    level = np.nextafter(level, np.float16(-np.inf))
  return Encoding(scale, float(level))


def encode(anomaly_map: np.ndarray, size: ImageSize, scale: float) -> np.ndarray:
  """Returns a map f32[H, W] of another (height, width) as f16, bilinearly resized and scaled.

  Raises:
    UserError: it has values that are not finite.
  """
  if not np.isfinite(anomaly_map).all():
    raise UserError('the map has values that are not finite: float16 maps cannot say where')
  resized = scale * np.asarray(mvtec_maps.resize(anomaly_map, size), np.float64)
  return np.minimum(resized, np.finfo(np.float16).max).astype(np.float16)


def paths(folder: pathlib.Path, category: str, name: str) -> dict[str, pathlib.Path]:
  """Returns the files of an image, named as 'test_private/000_regular.png', by MAPS and so on."""
  return {
    kind: (folder / kind / category / name).with_suffix(suffix) for kind, suffix in SUFFIXES.items()
  }


def write(
  folder: pathlib.Path, category: str, name: str, encoded: np.ndarray, level: float
) -> None:
  """Writes the files of an image, each of which appears whole.

  Args:
    folder: of the submission.
    category: of the image.
    name: as of `paths`.
    encoded: of `encode`.
    level: above which a pixel is anomalous.
  """
  place = paths(folder, category, name)
  with files.whole(place[MAPS]) as unfinished:
    tifffile.imwrite(unfinished, encoded, photometric='minisblack')
  files.write(place[THRESHOLDED], images.encode_png(encoded > np.float16(level)))


def check(
  folder: pathlib.Path,
  category: str,
  sources: Sequence[Source],
  level: float,
  progress: Progress = iter,
) -> list[str]:
  """Reads all files of a category, and returns what is wrong with them, a line each.

  Args:
    folder: of the submission.
    category: that is checked.
    sources: its images, of `private_splits.find`.
    level: above which a pixel is anomalous.
    progress: wraps the numbers of the images.
  """
  found = list(_wrong_names(folder, category))
  if not found:
    for index in progress(range(len(sources))):
      place = paths(folder, category, sources[index].name)
      content = images.read_bytes(sources[index].path)
      width, height = images.stored_size(content, str(sources[index].path))
      try:
        _check_files(place, (height, width), level)
      except UserError as error:
        found.append(str(error))
  return found


def check_categories(folder: pathlib.Path) -> list[str]:
  """Returns whether something else than all categories is in the folder of a submission."""
  expected = {folder: tuple(SUFFIXES)} | {
    folder / kind: tuple(private_splits.COUNTS) for kind in SUFFIXES
  }
  return list(_wrong_entries(expected))


def _wrong_names(folder: pathlib.Path, category: str) -> Iterator[str]:
  for kind, suffix in SUFFIXES.items():
    place = folder / kind / category
    expected = {place: tuple(private_splits.SPLITS)} | {
      place / split: [f'{stem}{suffix}' for stem in private_splits.stems(category, split)]
      for split in private_splits.SPLITS
    }
    yield from _wrong_entries(expected)


def _wrong_entries(expected: Mapping[pathlib.Path, Sequence[str]]) -> Iterator[str]:
  for place, names in expected.items():
    found = [entry.name for entry in place.iterdir()] if place.is_dir() else []
    if wrong := private_splits.differences(found, names):
      yield f'{place}: {wrong}'


def _check_files(place: Mapping[str, pathlib.Path], size: ImageSize, level: float) -> None:
  """Reads the files of an image of (height, width).

  Raises:
    UserError: says what is wrong with one of them.
  """
  values = _read(place[MAPS], tifffile.imread, np.float16, size)
  mask = _read(place[THRESHOLDED], _read_png, np.uint8, size)
  if not np.isfinite(values).all():
    raise UserError(f'{place[MAPS]}: has values that are not finite')
  if not np.isin(mask, (0, 255)).all():
    raise UserError(f'{place[THRESHOLDED]}: has other values than 0 and 255')
  if not np.array_equal(values > np.float16(level), mask > 0):
    raise UserError(f'{place[THRESHOLDED]}: is not the map above {level:g}')


def _read(
  path: pathlib.Path, decode: Callable[[pathlib.Path], np.ndarray], dtype: Any, size: ImageSize
) -> np.ndarray:
  """Returns the array of a file, which must be of a type and size."""
  try:
    found = decode(path)
  except Exception as error:  # a decoder raises anything of a file that is damaged
    raise UserError(f'{path}: is damaged ({error or type(error).__name__})') from error
  if found.dtype != dtype:
    raise UserError(f'{path}: holds {found.dtype}, not {np.dtype(dtype)}')
  if found.shape != size:
    raise UserError(f'{path}: is {_shape(found.shape)}, its image {_shape(size)}')
  return found


def _read_png(path: pathlib.Path) -> np.ndarray:
  with Image.open(path, formats=['PNG']) as image:
    return np.asarray(image)


def _shape(shape: Sequence[int]) -> str:
  return ' x '.join(map(str, shape))


def pack(folder: pathlib.Path, archive: pathlib.Path, progress: Progress = iter) -> None:
  """Packs a submission as MVTec's code does, under the folder's own name; it appears whole.

  Raises:
    UserError: it cannot be written.
  """
  found = sorted(path for path in folder.rglob('*') if path.is_file())
  with files.whole(archive) as unfinished, tarfile.open(unfinished, 'w:gz') as tar:
    for index in progress(range(len(found))):
      name = found[index].relative_to(folder.parent).as_posix()
      tar.add(found[index], name, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
  """Leaves out who has written a file."""
  return member.replace(uid=0, gid=0, uname='', gname='', deep=False)
