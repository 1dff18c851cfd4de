"""Anomaly maps as MVTec's evaluation code reads them: a TIFF of 32-bit floats for each test image.

The map of CATEGORY/test/DEFECT/ID.png is FOLDER/CATEGORY/test/DEFECT/ID.tiff, of the image's own
size: there it is compared with the ground truth, which is not resized either.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files


def write(folder: pathlib.Path, names: Sequence[str], maps: np.ndarray, sizes: np.ndarray) -> None:
  """Writes maps, bilinearly resized; each file appears whole or not at all.

  Args:
    folder: of the category.
    names: paths of the images relative to their category, as 'test/scratch/003.png'.
    maps: f32[N, H, W].
    sizes: i64[N, 2], (height, width) in pixels of the images.

  Raises:
    UserError: two images have one name but for the suffix, or the folder cannot be written.
  """
  paths = [folder / pathlib.PurePosixPath(name).with_suffix('.tiff') for name in names]
  if len(set(paths)) < len(paths):
    twice = next(path for path in paths if paths.count(path) > 1)
    raise UserError(f'two images would have the map {twice}: rename one of them')
  for path, each, (height, width) in zip(paths, maps, sizes, strict=True):
    resized = Image.fromarray(each).resize((int(width), int(height)), Image.Resampling.BILINEAR)
    with files.whole(path) as unfinished:
      resized.save(unfinished, format='TIFF')
