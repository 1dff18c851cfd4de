"""Masks: which files are one, how they are read, and whether they mark what a mask marks.

A mask marks what is anomalous. It is a picture (see `images.decode_mask`), or an array of numpy,
bool or integer, [H, W], that is True or not 0 there.

What is looked at more closely is judged by these rules, which say so and change nothing:
  - tiny: fewer than TINY pixels are marked, and less than TINY_SHARE of the picture.
  - full: all are.
  - inverted: at least NEARLY all pixels are marked, or more than half of them and NEARLY all along
    the edge of the picture. Defects that reach all around a picture are rarer than masks that are
    white where a part is good.
  - grey: there are more than LEVELS levels beside black, and more than FAINT of the marked pixels
    are darker than half the brightest. So are JPEG masks that were saved as PNG, photographs and
    heat maps, but not masks with smooth edges.
  - labels: the brightest pixel is darker than DARK, so the picture looks black.
"""

import io
import pathlib
import re

import numpy as np

from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError

ARRAY = '.npy'
SUFFIXES = (*images.SUFFIXES, ARRAY)

TINY = 10
TINY_SHARE = 0.01
NEARLY = 0.9
LEVELS = 16
FAINT = 0.25
DARK = 32

# What a mask's name may have besides its image's.
_TAIL = re.compile(r'[_\-. ](mask|gt|ground_?truth)$', re.IGNORECASE)


def stem_of_image(stem: str) -> str:
  """Returns a mask's stem without '_mask' or the like."""
  return _TAIL.sub('', stem)


def names_of_image(mask: pathlib.Path) -> set[str]:
  """Returns the names, or stems, of the images that a mask may belong to by its own name."""
  return {mask.stem, stem_of_image(mask.stem)}


def decode(data: bytes, path: pathlib.Path, frame: images.Frame | None = None) -> np.ndarray:
  """Returns the mask of a file's content, bool[H, W].

  Args:
    data: the file's content.
    path: of the file.
    frame: of the image that it belongs to, if any; an array is upright.

  Raises:
    UserError: the file is no mask, or damaged.
  """
  if path.suffix.lower() != ARRAY:
    return images.decode_mask(data, str(path), frame)
  try:
    array = np.load(io.BytesIO(data), allow_pickle=False)
  except (ValueError, EOFError, OSError) as error:
    raise UserError(f'{path}: is no array of numpy, or damaged; replace or remove it') from error
  if not isinstance(array, np.ndarray) or array.dtype.kind not in 'biu':
    kind = getattr(array, 'dtype', 'several arrays')
    raise UserError(f'{path}: holds {kind}; save the mask as bool or integers')
  if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
    array = array[0] if array.shape[0] == 1 else array[:, :, 0]
  if array.ndim != 2:
    raise UserError(f'{path}: has the shape {array.shape}; save the mask as [height, width]')
  marked: np.ndarray = array != 0
  return marked


def judge(mask: np.ndarray) -> str | None:
  """Returns the kind of what is odd about a mask bool[H, W] that marks something, if anything."""
  marked = int(mask.sum())
  if marked == mask.size:
    return 'mask_full'
  edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
  if marked >= NEARLY * mask.size or (2 * marked > mask.size and edge.mean() >= NEARLY):
    return 'mask_inverted'
  return 'mask_tiny' if is_tiny(marked, mask.size) else None


def is_tiny(marked: int, pixels: int) -> bool:
  """Returns whether so few pixels are marked that they may be a slip."""
  return marked < TINY and marked < TINY_SHARE * pixels


def judge_levels(levels: np.ndarray) -> str | None:
  """Returns the kind of what is odd about a mask's grey levels u8[H, W], if anything."""
  counts = np.bincount(levels.ravel(), minlength=256)[1:]
  values = np.flatnonzero(counts) + 1
  if not len(values):
    return None
  faint = counts[: values[-1] // 2].sum() / counts.sum()
  if len(values) > LEVELS and faint > FAINT:
    return 'mask_grey'
  return 'mask_labels' if values[-1] < DARK else None
