"""Image files of any common kind to RGB bytes and boolean masks, and both to another size.

What is decided here:
  - Transparency is dropped from images: the recorded colours stay, no background is made up.
  - 16-bit channels keep their high byte, grey and RGB alike, so that 8-bit values that were stored
    as 16-bit ones (times 256 or times 257) come back unchanged. The full 16-bit range is meant:
    12-bit data must be shifted up by whoever writes the file.
  - EXIF orientation is applied, to images and to masks.
  - A mask is True where a pixel is neither black nor transparent, so that 0/1, 0/255, label and
    painted masks all work; in a JPEG, whose compression leaves traces around every edge, where it
    is brighter than half.
  - Of a file with several pages the first counts; colour profiles are ignored.
"""

import io
import pathlib
import struct
import threading
import warnings
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps

from patch_svdd_jax.errors import UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
FILTERS = {
  'nearest': Image.Resampling.NEAREST,
  'box': Image.Resampling.BOX,
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
}
_FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF')
_ORIENTATION = 0x0112  # the EXIF tag
# What Pillow raises for files that are cut short, damaged or no images at all.
_DAMAGE = (
  OSError,
  SyntaxError,
  ValueError,
  TypeError,
  LookupError,
  ArithmeticError,
  EOFError,
  NotImplementedError,
  RuntimeError,
  struct.error,
  zlib.error,
)


def read_bytes(path: pathlib.Path) -> bytes:
  """The file's content; a UserError where it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error


class _Quiet:
  """Silences warnings about metadata and makes errors of those about size, in any thread.

  Python keeps its filters for all threads together: the first decoder that begins sets them, the
  last one that ends sets them back.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._inside = 0
    self._before = warnings.catch_warnings()

  def __enter__(self) -> None:
    with self._lock:
      if not self._inside:
        self._before = warnings.catch_warnings()
        self._before.__enter__()
        warnings.simplefilter('ignore')
        warnings.simplefilter('error', Image.DecompressionBombWarning)
      self._inside += 1

  def __exit__(self, *exception: Any) -> None:
    with self._lock:
      self._inside -= 1
      if not self._inside:
        self._before.__exit__(*exception)


_quiet = _Quiet()


def _open(data: bytes, name: str, *, decode: bool = True) -> Image.Image:
  """Decodes all pixels of the first page, in whatever mode they are stored; or its header only."""
  try:
    with _quiet:
      image = Image.open(io.BytesIO(data), formats=_FORMATS)
      if decode:
        image.load()
      return image
  except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
    limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    raise UserError(
      f'{name}: has more than {limit} million pixels; cut or shrink it first'
    ) from error
  except Image.UnidentifiedImageError as error:
    raise UserError(
      f'{name}: is not a PNG, JPEG, BMP or TIFF image, or is damaged; replace or remove it'
    ) from error
  except _DAMAGE as error:
    raise UserError(f'{name}: is damaged or cut short ({error}); replace or remove it') from error


def stored_size(data: bytes, name: str) -> tuple[int, int]:
  """(width, height) in pixels as an image file's header has them, before it is turned upright.

  Raises:
    UserError: as of `decode_image`, for what shows in the header.
  """
  return _open(data, name, decode=False).size


class Facts(NamedTuple):
  """What an image file's header says.

  Attributes:
    format: and pixels, such as 'PNG 8-bit RGB'.
    size: (width, height) in pixels before it is turned upright.
    turned: whether its EXIF orientation turns it.
  """

  format: str
  size: tuple[int, int]
  turned: bool


def facts(data: bytes, name: str) -> Facts:
  """Reads an image file's header; errors as for `stored_size`."""
  image = _open(data, name, decode=False)
  return Facts(f'{image.format} {_pixels(image)}', image.size, _is_turned(image))


def _pixels(image: Image.Image) -> str:
  """Returns the bits and channels of an image's pixels in words."""
  # Pillow makes 8 bits of 16 where there are several channels; how they are stored says so.
  stored = ' '.join(str(tile[3]) for tile in getattr(image, 'tile', ()))
  bits = {'1': 1, 'I': 32, 'F': 32}.get(image.mode, 8)
  if image.mode.startswith('I;16') or ';16' in stored:
    bits = 16
  channels = {'1': 'grey', 'L': 'grey', 'I': 'grey', 'F': 'grey', 'LA': 'grey and alpha'}
  grey = 'grey' if image.mode.startswith('I;16') else image.mode
  return f'{bits}-bit {channels.get(image.mode, grey)}'


def mask_levels(data: bytes, name: str) -> tuple[np.ndarray, bool]:
  """Returns the grey levels u8[H, W] of a mask file, and whether it is a JPEG.

  Levels of 16-bit files are those of their high byte, unless none is above 255.
  """
  image = _open(data, name)
  if image.mode.startswith(('I', 'F')):
    levels = np.asarray(image)
    levels = np.clip(levels if levels.max(initial=0) <= 255 else levels / 257, 0, 255)
  else:
    rgba = np.asarray(image.convert('RGBA'))
    levels = np.where(rgba[..., 3] > 0, rgba[..., :3].max(axis=-1), 0)
  return levels.astype(np.uint8), image.format in ('JPEG', 'MPO')


def _is_turned(image: Image.Image) -> bool:
  return bool(image.getexif().get(_ORIENTATION, 1) != 1)


def _upright(image: Image.Image) -> Image.Image:
  return ImageOps.exif_transpose(image) if _is_turned(image) else image


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
  image = _upright(image)
  if image.mode.startswith('I;16'):
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
  if image.mode in ('I', 'F'):
    raise UserError(
      f'{name}: has 32-bit pixels, whose range is unknown; convert it to 8 or 16 bits a channel'
    )
  if image.mode in ('P', 'PA'):
    image = image.convert('RGBA')  # Pillow warns about transparent palettes otherwise
  try:
    return np.array(image.convert('RGB'))
  except ValueError as error:
    raise UserError(f'{name}: has {image.mode} pixels; convert it to grey or RGB') from error


def decode_image(data: bytes, name: str) -> np.ndarray:
  """Decodes an image file.

  Args:
    data: the file's content.
    name: what to call it in an error.

  Returns:
    u8[H, W, 3], RGB, upright.

  Raises:
    UserError: where the file is damaged, far too large or of a kind that has no RGB meaning.
  """
  return _to_rgb(_open(data, name), name)


def decode_mask(data: bytes, name: str) -> np.ndarray:
  """Decodes a mask file to bool[H, W], upright; arguments and errors as for `decode_image`."""
  stored = _open(data, name)
  threshold = 127 if stored.format in ('JPEG', 'MPO') else 0
  image = _upright(stored)
  if image.mode == 'L' or image.mode.startswith('I') or image.mode == 'F':
    return np.asarray(image) > threshold
  try:
    red, green, blue, alpha = image.convert('RGBA').split()
  except ValueError as error:
    raise UserError(f'{name}: has {image.mode} pixels; convert the mask to grey') from error
  brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
  return (np.asarray(brightest) > threshold) & (np.asarray(alpha) > 0)


def encode_png(array: np.ndarray) -> bytes:
  """The PNG file of u8[H, W, 3], of u8[H, W, 4] with opacity or, as 0 and 255, of bool[H, W].

  Fast rather than small.
  """
  if array.dtype == bool:
    array = array.astype(np.uint8) * 255
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format='PNG', compress_level=1)
  return buffer.getvalue()


def normalise(data: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
  """An image file as plain 8-bit RGB, at its own size.

  JPEG files that are that already, or grey, stay as they are, a tenth of the size of their PNG.

  Returns:
    (a PNG or JPEG file's content, (height, width)).
  """
  image = _open(data, name)
  if image.format == 'JPEG' and image.mode in ('RGB', 'L') and not _is_turned(image):
    return data, (image.height, image.width)
  array = _to_rgb(image, name)
  return encode_png(array), (array.shape[0], array.shape[1])


def decode_normalised(data: bytes) -> np.ndarray:
  """u8[H, W, 3] of what `normalise` returned; u8[H, W] of a mask that `encode_png` wrote."""
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image.convert('RGB') if image.format == 'JPEG' else image)


def resize_image(image: np.ndarray, size: tuple[int, int], resample: str) -> np.ndarray:
  """u8[h, w, 3] to u8[H, W, 3] for size (H, W) with the filter that FILTERS names."""
  if image.shape[:2] == size:
    return image
  resized = Image.fromarray(image).resize((size[1], size[0]), FILTERS[resample])
  return np.asarray(resized)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """bool[h, w] to bool[H, W] for size (H, W), by nearest neighbour."""
  if mask.shape == size:
    return mask
  resized = Image.fromarray(mask.astype(np.uint8)).resize(
    (size[1], size[0]), Image.Resampling.NEAREST
  )
  return np.asarray(resized) > 0
