"""Image files of any common kind to RGB bytes and boolean masks, and both to another size.

What is decided here, and shown kind by kind in docs/images.md:
  - Transparency is dropped from images: the recorded colours stay, no background is made up.
  - 8 bits a channel mean 0 to 255; of what is deeper the training images decide what is black and
    white, see `value_range`.
  - EXIF orientation is applied to images: everything is as viewers show it. A mask that has an
    orientation of its own is turned by it; one that has none belongs to the stored pixels of its
    image and turns with these, unless its size fits the upright image alone.
  - A mask is True where a pixel is neither black nor transparent, so that 0/1, 0/255, label and
    painted masks all work; in a JPEG, whose compression leaves traces around every edge, where it
    is brighter than half.
  - Of a file with several pages the first counts; colour profiles are ignored.
"""

import io
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from patch_svdd_jax.data import picture, value_range
from patch_svdd_jax.data.picture import Picture, upright
from patch_svdd_jax.errors import UserError

SUFFIXES = picture.SUFFIXES
stored_size = picture.stored_size
Facts = picture.Facts
facts = picture.facts
FILTERS = {
  'nearest': Image.Resampling.NEAREST,
  'box': Image.Resampling.BOX,
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}


def read_bytes(path: pathlib.Path) -> bytes:
  """Returns the file's content; a UserError where it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error


class Frame(NamedTuple):
  """How an image lies in its file.

  Attributes:
    size: (height, width) of the stored pixels.
    orientation: of EXIF, 1 to 8; None where the file says nothing of it.
  """

  size: tuple[int, int]
  orientation: int | None

  @property
  def upright_size(self) -> tuple[int, int]:
    """Returns (height, width) as viewers show it."""
    return self.size[::-1] if self.orientation in (5, 6, 7, 8) else self.size


def _frame(found: Picture) -> Frame:
  return Frame((found.samples.shape[0], found.samples.shape[1]), found.orientation)


def _to_rgb(found: Picture, within: value_range.Range, name: str) -> np.ndarray:
  levels = upright(value_range.to_levels(found, within, name), found.orientation)
  return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels


def decode_image(data: bytes, name: str, within: value_range.Range) -> np.ndarray:
  """Decodes an image file.

  Args:
    data: the file's content.
    name: what to call it in an error.
    within: the range of deep values, see `value_range`.

  Returns:
    u8[H, W, 3], RGB, upright.

  Raises:
    UserError: where the file is damaged, far too large, of a kind that has no RGB meaning, or deep
      and out of the range.
  """
  return _to_rgb(picture.read(data, name), within, name)


def decode_mask(data: bytes, name: str, frame: Frame | None = None) -> np.ndarray:
  """Decodes a mask file to bool[H, W], upright; arguments and errors as for `decode_image`.

  Args:
    data: the file's content.
    name: what to call it in an error.
    frame: of the image that it belongs to, if any.
  """
  found = picture.read(data, name)
  if np.isnan(found.colours).any():
    raise UserError(f'{name}: holds values that are no numbers (NaN); replace them')
  threshold = 127 if found.format in ('JPEG', 'MPO') and not found.deep else 0
  mask: np.ndarray = np.any(found.colours > threshold, axis=-1)
  if found.opacity is not None:
    mask &= found.opacity > 0
  return upright(mask, _mask_orientation(found, frame))


def _mask_orientation(mask: Picture, frame: Frame | None) -> int | None:
  """Returns how to turn a mask; see the module's docstring."""
  if mask.orientation or not frame:
    return mask.orientation
  return frame.orientation if mask.samples.shape[:2] == frame.size else None


def mask_levels(data: bytes, name: str) -> tuple[np.ndarray, bool]:
  """Returns the grey levels u8[H, W] of a mask file as stored, and whether it is a JPEG.

  Levels of deep files are those of 16 bits, unless none is above 255.
  """
  found = picture.read(data, name)
  return _levels(found), found.format in ('JPEG', 'MPO')


def _levels(found: Picture) -> np.ndarray:
  levels = found.colours.max(axis=-1)
  if found.deep:
    levels = np.clip(levels if levels.max(initial=0) <= 255 else levels / 257, 0, 255)
  if found.opacity is not None:
    levels = np.where(found.opacity > 0, levels, 0)
  grey: np.ndarray = levels.astype(np.uint8)
  return grey


def decode_region(data: bytes, name: str) -> np.ndarray:
  """Decodes a region of interest to bool[H, W], upright: True where it is brighter than half.

  Arguments and errors are those of `decode_image`.
  """
  found = picture.read(data, name)
  return upright(_levels(found) > 127, found.orientation)


def encode_png(array: np.ndarray) -> bytes:
  """Encodes u8[H, W, 3], u8[H, W, 4] with opacity or, as 0 and 255, bool[H, W] as PNG.

  Fast rather than small.
  """
  if array.dtype == bool:
    array = array.astype(np.uint8) * 255
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format='PNG', compress_level=1)
  return buffer.getvalue()


class Normalised(NamedTuple):
  """An image file as plain 8-bit RGB, upright, at its own size.

  Attributes:
    content: of a PNG or JPEG file.
    size: (height, width) in pixels.
    frame: how it lay in the file that it was.
  """

  content: bytes
  size: tuple[int, int]
  frame: Frame


def normalise(data: bytes, name: str, within: value_range.Range) -> Normalised:
  """Makes plain 8-bit RGB of an image file; arguments and errors as for `decode_image`.

  JPEG files that are that already, or grey, stay as they are, a tenth of the size of their PNG.
  """
  found = picture.read(data, name)
  frame = _frame(found)
  plain = found.format == 'JPEG' and found.mode in ('RGB', 'L')
  if plain and found.orientation in (None, 1):
    return Normalised(data, frame.size, frame)
  array = _to_rgb(found, within, name)
  return Normalised(encode_png(array), frame.upright_size, frame)


def decode_normalised(data: bytes) -> np.ndarray:
  """Decodes what `normalise` returned to u8[H, W, 3]; a mask of `encode_png` to u8[H, W]."""
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image.convert('RGB') if image.format == 'JPEG' else image)


def resize_image(image: np.ndarray, size: tuple[int, int], resample: str) -> np.ndarray:
  """Resizes u8[h, w, 3] to u8[H, W, 3] for size (H, W) with the filter that FILTERS names."""
  if image.shape[:2] == size:
    return image
  resized = Image.fromarray(image).resize((size[1], size[0]), FILTERS[resample])
  return np.asarray(resized)


# What `resize_mask` does, for those who read figures of pixels.
MASK_RULE = (
  'A pixel is defective where the pixel of the mask file under its centre is marked: masks are '
  'resized by nearest neighbour, and a defect that is thinner than a pixel may lose parts.'
)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes bool[h, w] to bool[H, W] for size (H, W); see MASK_RULE."""
  if mask.shape == size:
    return mask
  resized = Image.fromarray(mask.astype(np.uint8)).resize(
    (size[1], size[0]), Image.Resampling.NEAREST
  )
  return np.asarray(resized) > 0
