"""Image files as the numbers that they store, before these are given a meaning.

Pillow decodes what has 8 bits a channel, `tiff` every TIFF, and imagecodecs deep PNG, JPEG and JPEG
2000, of which Pillow keeps 8 bits or nothing. docs/images.md has a table of all kinds.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from patch_svdd_jax.data import jpeg_headers, png_chunks
from patch_svdd_jax.errors import UserError

SUFFIXES = (
  *('.png', '.jpg', '.jpeg', '.jfif', '.mpo', '.bmp', '.tif', '.tiff'),
  *('.webp', '.gif', '.jp2', '.j2k'),
)
NAMES = 'PNG, JPEG, BMP, TIFF, WebP, GIF or JPEG 2000'
ORIENTATION = 0x0112  # the EXIF tag
_FORMATS = ('PNG', 'JPEG', 'BMP', 'WEBP', 'GIF', 'JPEG2000')
_TIFF_MAGICS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# What modes of Pillow are as channels; others have no meaning here.
_AS = {
  **{mode: mode for mode in ('L', 'LA', 'RGB', 'RGBA')},
  **dict.fromkeys(('CMYK', 'YCbCr', 'RGBX'), 'RGB'),
  **dict.fromkeys(('P', 'PA', 'RGBa'), 'RGBA'),
  '1': 'L',
  'La': 'LA',
}


class Picture(NamedTuple):
  """The stored content of an image file.

  Attributes:
    samples: [H, W, C] as stored, not turned, where C is 1 (grey), 2 (grey, opacity), 3 (RGB) or
      4 (RGB, opacity): uint8, or another type of a deep file.
    orientation: of EXIF, 1 to 8; None where the file says nothing of it.
    format: 'JPEG', 'PNG', ... as Pillow calls it.
    mode: of the stored pixels, 'RGB', 'L', 'CMYK', ... as Pillow calls it; '' where others decode.
  """

  samples: np.ndarray
  orientation: int | None
  format: str
  mode: str = ''

  @property
  def deep(self) -> bool:
    """Whether it has more than 8 bits a channel, or other numbers than whole ones from 0."""
    return self.samples.dtype != np.uint8

  @property
  def colours(self) -> np.ndarray:
    """Returns the samples [H, W, 1 or 3] without opacity."""
    return self.samples[..., : 1 if self.samples.shape[-1] < 3 else 3]

  @property
  def opacity(self) -> np.ndarray | None:
    """Returns the samples [H, W] of opacity, None where there is none."""
    return None if self.samples.shape[-1] % 2 else self.samples[..., -1]


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


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
  """Makes one line of whatever a decoder raises for a file that is damaged or no image."""
  try:
    with _quiet:
      yield
  except UserError:
    raise
  except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
    limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    raise UserError(
      f'{name}: has more than {limit} million pixels; cut or shrink it first'
    ) from error
  except Image.UnidentifiedImageError as error:
    raise UserError(
      f'{name}: is not a {NAMES} image, or is damaged; replace or remove it'
    ) from error
  except MemoryError as error:
    raise UserError(f'{name}: takes more memory than there is; shrink it first') from error
  except Exception as error:  # Decoders raise anything, of files that are damaged or made to.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{name}: is damaged or cut short ({reason}); replace or remove it') from error


def read(data: bytes, name: str) -> Picture:
  """Decodes the first picture of an image file.

  Args:
    data: the file's content.
    name: what to call it in an error.

  Raises:
    UserError: where the file is damaged, far too large or of a kind that has no meaning here.
  """
  with _explained(name):
    if _is_tiff(data):
      from patch_svdd_jax.data import tiff  # takes a tenth of a second

      with tiff.opened(data, name) as page:
        check_pixels(page.imagewidth, page.imagelength)
        return Picture(tiff.samples(page, len(data), name), tiff.orientation(page), 'TIFF')
    if data.startswith(png_chunks.SIGNATURE):
      return _read_png(data, name)
    if data.startswith(jpeg_headers.SIGNATURES) and jpeg_headers.bits(io.BytesIO(data)) > 8:
      return _read_deep_jpeg(data, name)
    return _by_pillow(data, name)


def stored_size(data: bytes, name: str) -> tuple[int, int]:
  """Returns (width, height) in pixels as an image file's header has them, before it is turned.

  Raises:
    UserError: as for `read`, for what shows in the header.
  """
  with _explained(name):
    if _is_tiff(data):
      from patch_svdd_jax.data import tiff

      with tiff.opened(data, name) as page:
        size = (int(page.imagewidth), int(page.imagelength))
    elif data.startswith(png_chunks.SIGNATURE):
      size = png_chunks.size(data)
    elif data.startswith(jpeg_headers.SIGNATURES) and jpeg_headers.bits(io.BytesIO(data)) > 8:
      size = jpeg_headers.size(io.BytesIO(data))
    else:
      size = Image.open(io.BytesIO(data), formats=_FORMATS).size
    check_pixels(*size)
    return size


class Facts(NamedTuple):
  """The facts in an image file's header.

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
  size = stored_size(data, name)
  with _explained(name):
    if _is_tiff(data):
      from patch_svdd_jax.data import tiff

      with tiff.opened(data, name) as page:
        kind, orientation = f'TIFF {tiff.pixels(page)}', tiff.orientation(page)
    elif data.startswith(png_chunks.SIGNATURE):
      kind = f'PNG {png_chunks.pixels(data)}'
      orientation = exif_orientation(png_chunks.split(data)[1])
    elif data.startswith(jpeg_headers.SIGNATURES) and jpeg_headers.bits(io.BytesIO(data)) > 8:
      form = 'JPEG' if data.startswith(jpeg_headers.JPEG) else 'JPEG2000'
      kind, orientation = f'{form} {jpeg_headers.bits(io.BytesIO(data))}-bit', None
    else:
      image = Image.open(io.BytesIO(data), formats=_FORMATS)
      names = {'1': '1-bit grey', 'L': '8-bit grey', 'LA': '8-bit grey and alpha'}
      kind = f'{image.format} {names.get(image.mode, f"8-bit {image.mode}")}'
      orientation = _orientation(image)
  return Facts(kind, size, orientation not in (None, 1))


def may_be_deep(file: Any) -> bool:
  """Returns whether an image file is a deep one by its header, which is all that is read.

  Args:
    file: open, for bytes, at its begin.

  Raises:
    Exception: any, where the header is damaged.
  """
  start = file.read(32)
  file.seek(0)
  if start.startswith(_TIFF_MAGICS):
    from patch_svdd_jax.data import tiff

    return tiff.is_deep(file)
  if start.startswith(png_chunks.SIGNATURE):
    return png_chunks.bits(start) > 8
  return start.startswith(jpeg_headers.SIGNATURES) and jpeg_headers.bits(file) > 8


def check_pixels(width: int, height: int) -> None:
  """Refuses what Pillow would, of files that it does not read.

  Raises:
    DecompressionBombError: there are too many pixels.
    ValueError: there are none.
  """
  if width < 1 or height < 1:
    raise ValueError('there are no pixels')
  if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
    raise Image.DecompressionBombError


def _is_tiff(data: bytes) -> bool:
  return data.startswith(_TIFF_MAGICS)


def _by_pillow(data: bytes, name: str) -> Picture:
  image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
  form = str(image.format)
  image.load()
  mode = image.mode
  orientation = _orientation(image)
  if 'transparency' in image.info and image.mode in ('L', 'RGB'):
    image = image.convert('LA' if image.mode == 'L' else 'RGBA')
  if image.mode not in _AS:
    raise UserError(f'{name}: has {image.mode} pixels; convert it to grey or RGB')
  if image.mode != _AS[image.mode]:
    image = image.convert(_AS[image.mode])
  samples = np.asarray(image)
  return Picture(samples.reshape(*samples.shape[:2], -1), orientation, form, mode)


def _read_png(data: bytes, name: str) -> Picture:
  check_pixels(*png_chunks.size(data))
  essential, exif = png_chunks.split(data)
  orientation = exif_orientation(exif)
  if png_chunks.bits(data) <= 8:
    return _by_pillow(essential, name)._replace(orientation=orientation)
  return Picture(_deep_png(essential), orientation, 'PNG')


def _deep_png(essential: bytes) -> np.ndarray:
  import imagecodecs

  def decode(file: bytes) -> np.ndarray:
    samples: np.ndarray = imagecodecs.png_decode(file)
    return samples.reshape(*samples.shape[:2], -1)

  if not png_chunks.is_interlaced(essential):
    return decode(essential)
  parts = [(rows, columns, decode(file)) for rows, columns, file in png_chunks.passes(essential)]
  width, height = png_chunks.size(essential)
  samples = np.zeros((height, width, parts[0][2].shape[-1]), parts[0][2].dtype)
  for rows, columns, part in parts:
    samples[rows, columns] = part
  return samples


def _read_deep_jpeg(data: bytes, name: str) -> Picture:
  """Decodes JPEG of 12 bits, and JPEG 2000 of more than 8."""
  import imagecodecs

  check_pixels(*jpeg_headers.size(io.BytesIO(data)))
  jpeg_headers.check_end(data)
  if data.startswith(jpeg_headers.JPEG):
    samples, form = imagecodecs.jpeg8_decode(data), 'JPEG'
    orientation = exif_orientation(jpeg_headers.exif(data))
  else:
    samples, form, orientation = imagecodecs.jpeg2k_decode(data), 'JPEG2000', None
  samples = samples.reshape(*samples.shape[:2], -1)
  if samples.shape[-1] > 4 or (form == 'JPEG' and samples.shape[-1] not in (1, 3)):
    raise UserError(f'{name}: has {samples.shape[-1]} channels; convert it to grey or RGB')
  return Picture(samples, orientation, form)


def _orientation(image: Image.Image) -> int | None:
  with contextlib.suppress(Exception):  # EXIF that cannot be read turns nothing in viewers either.
    return _known(image.getexif().get(ORIENTATION))
  return None


def exif_orientation(content: bytes) -> int | None:
  """Returns what EXIF content says of orientation, 1 to 8; None where it says nothing."""
  exif = Image.Exif()
  with contextlib.suppress(Exception):  # as above
    exif.load(content)
    return _known(exif.get(ORIENTATION))
  return None


def _known(orientation: Any) -> int | None:
  return int(orientation) if orientation in range(1, 9) else None


def upright(array: np.ndarray, orientation: int | None) -> np.ndarray:
  """Turns and mirrors an array [H, W, ...] from its EXIF orientation to how viewers show it."""
  if orientation in (5, 6, 7, 8):
    array = array.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    array = array[::-1]
  if orientation in (2, 3, 6, 7):
    array = array[:, ::-1]
  return np.ascontiguousarray(array)
