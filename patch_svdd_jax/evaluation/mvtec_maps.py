"""Anomaly maps as MVTec's evaluation code reads them: a TIFF of 32-bit floats for each test image.

The map of CATEGORY/test/DEFECT/ID.png is FOLDER/CATEGORY/test/DEFECT/ID.tiff, of the image's own
size: there it is compared with the ground truth, which is not resized either. Each file says in its
tag 'Software' that it was written here: maps of an earlier evaluation are removed, those of others
are not.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, TiffImagePlugin

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import files
from patch_svdd_jax.system.names import portable

_SOFTWARE = 305  # the TIFF tag
_OURS = 'patch_svdd_jax'


def paths(names: Sequence[str]) -> dict[str, pathlib.PurePosixPath]:
  """Returns where the map of each image lies, below the folder of the category.

  Raises:
    UserError: two images have one name but for the suffix, or the case of letters.
  """
  found = {name: portable(pathlib.PurePosixPath(name).with_suffix('.tiff')) for name in names}
  owner: dict[str, str] = {}
  for name, path in found.items():
    other = owner.setdefault(files.ignoring_case(path), name)
    if other != name:
      raise UserError(f'{other} and {name} would have one map, {path}: rename one of them')
  return found


def check(folder: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
  """Returns the maps that an earlier evaluation has left where those of these images belong.

  Args:
    folder: of the category.
    names: paths of the images relative to their category, as 'test/scratch/003.png'.

  Raises:
    UserError: someone else's TIFF files are there, or images cannot have maps of their own.
  """
  tops = {path.parts[0] for path in paths(names).values()}
  there = [path for top in sorted(tops) for path in sorted((folder / top).rglob('*.tiff'))]
  for path in there:
    if not _is_ours(path):
      raise UserError(
        f'{path} is not known to be of an evaluation: move it, or name another folder'
      )
  return there


def _is_ours(path: pathlib.Path) -> bool:
  try:
    with Image.open(path, formats=['TIFF']) as image:
      tags: Mapping[int, object] = getattr(image, 'tag_v2', {})
      return tags.get(_SOFTWARE) == _OURS
  except (OSError, SyntaxError, ValueError):
    return False


def write(folder: pathlib.Path, names: Sequence[str], maps: np.ndarray, sizes: np.ndarray) -> None:
  """Writes maps, bilinearly resized, in place of all earlier ones; each file appears whole.

  Args:
    folder: of the category.
    names: as of `check`.
    maps: f32[N, H, W].
    sizes: i64[N, 2], (height, width) in pixels of the images.

  Raises:
    UserError: as of `check`, or the folder cannot be written.
  """
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  tags[_SOFTWARE] = _OURS
  with files.explained(folder):
    for earlier in check(folder, names):
      earlier.unlink()
  for path, each, (height, width) in zip(paths(names).values(), maps, sizes, strict=True):
    with files.whole(folder / path) as unfinished:
      resize(each, (height, width)).save(unfinished, format='TIFF', tiffinfo=tags)


def resize(anomaly_map: np.ndarray, size: ImageSize) -> Image.Image:
  """Returns a map f32[H, W] of another (height, width), bilinearly resized."""
  height, width = map(int, size)
  return Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
