"""TIFF files, by tifffile: of any depth, compression and order of planes.

What no rule of TIFF gives a meaning as grey or RGB is refused. `MaxSampleValue` and its like are
not read: by the specification they are statistics, and change no picture.
"""

import contextlib
import io
import logging
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from patch_svdd_jax.errors import UserError

# It logs what it then raises, or reads all the same.
logging.getLogger('tifffile').setLevel(logging.CRITICAL + 1)

_ORIENTATION = 274
_UINT, _FLOAT = 1, 3
_ASSOCIATED, _OPACITY = 1, (1, 2)  # of ExtraSamples
_GREY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_DEEP = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
_SHALLOW = (
  *_GREY,
  tifffile.PHOTOMETRIC.RGB,
  tifffile.PHOTOMETRIC.PALETTE,
  tifffile.PHOTOMETRIC.SEPARATED,
  tifffile.PHOTOMETRIC.YCBCR,
)
# Size, depth, compression, colours, strips, planes, predictor, palette, tiles, opacity, JPEG.
_NEEDED = frozenset(
  (
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320),
    *(322, 323, 324, 325, 338, 339, 347, 530),
  )
)
_JPEG = tifffile.COMPRESSION.JPEG
_ADVICE = 'convert it to grey or RGB, as PNG or as TIFF of unsigned numbers or floats'
_PREDICTED = (
  tifffile.COMPRESSION.LZW,
  tifffile.COMPRESSION.ADOBE_DEFLATE,
  tifffile.COMPRESSION.DEFLATE,
  tifffile.COMPRESSION.ZSTD,
  tifffile.COMPRESSION.LZMA,
)


@contextlib.contextmanager
def opened(data: bytes, name: str) -> Iterator[tifffile.TiffPage]:
  """Gives the first page of a TIFF file.

  Raises:
    UserError: it has none, or its pixels are of a kind that is not read.
    Exception: any, where it is damaged.
  """
  with tifffile.TiffFile(io.BytesIO(data)) as file:
    page = file.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    _check_tags(page, data)
    _check_kind(page, name)
    yield page


def _check_tags(page: tifffile.TiffPage, data: bytes) -> None:
  """Refuses a page that lacks a tag which pixels need: tifffile passes over what it cannot read."""
  large = page.parent.is_bigtiff
  order, start = page.parent.byteorder, page.offset + (8 if large else 2)
  (count,) = struct.unpack_from(order + ('Q' if large else 'H'), data, page.offset)
  step = 20 if large else 12
  for at in range(start, start + step * count, step):
    (code,) = struct.unpack_from(order + 'H', data, at)
    if code in _NEEDED and code not in page.tags:
      raise ValueError(f'tag {code} cannot be read')


def is_deep(file: Any) -> bool:
  """Returns whether the first page of an open file has other numbers than 8 bits."""
  with tifffile.TiffFile(file) as opened_file:
    page = opened_file.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    return not _is_shallow(page)


def _is_shallow(page: tifffile.TiffPage) -> bool:
  return page.sampleformat == _UINT and page.bitspersample <= 8


def _check_kind(page: tifffile.TiffPage, name: str) -> None:
  """Refuses what has no meaning."""
  bits = page.bitspersample
  if _is_shallow(page):
    known = bits in (1, 2, 4, 8) and page.photometric in _SHALLOW
  else:
    numbers = page.dtype is not None and page.dtype.kind in 'uif'
    known = numbers and page.photometric in _DEEP
  if page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression != _JPEG:
    known = known and tuple(page.subsampling or (2, 2)) == (1, 1)
  if not known or page.imagedepth != 1:
    kind = (
      f'{bits}-bit {_word(tifffile.SAMPLEFORMAT(page.sampleformat))}, {_word(page.photometric)}'
    )
    raise UserError(f'{name}: has pixels of a kind that is not read ({kind}); {_ADVICE}')
  if page.predictor != 1 and page.compression not in _PREDICTED:
    kind = f'{_word(page.compression)} with a predictor'
    raise UserError(f'{name}: is compressed in a way that is not read ({kind}); {_ADVICE}')


def _word(value: Any) -> str:
  return str(getattr(value, 'name', value))


def orientation(page: tifffile.TiffPage) -> int | None:
  """Returns the page's EXIF orientation, 1 to 8; None where it has none."""
  tag = page.tags.get(_ORIENTATION)
  return int(tag.value) if tag is not None and tag.value in range(1, 9) else None


def pixels(page: tifffile.TiffPage) -> str:
  """Returns the bits and channels of a page in words."""
  names: dict[int, str] = dict.fromkeys(_GREY, 'grey')
  colours = names.get(page.photometric, _word(page.photometric))
  extra = {'grey': 'grey and alpha', 'RGB': 'RGBA'}.get(colours, colours)
  number = {2: 'signed ', 3: 'float '}.get(page.sampleformat, '')
  return f'{page.bitspersample}-bit {number}{extra if page.extrasamples else colours}'


def samples(page: tifffile.TiffPage, file_bytes: int, name: str) -> np.ndarray:
  """Decodes a page to [H, W, C] as `Picture.samples` are.

  Args:
    page: as `opened` gives it.
    file_bytes: how many the file has.
    name: of the file, for errors.

  Raises:
    UserError: its channels have no meaning.
    Exception: any, where it is damaged.
  """
  _check_whole(page, file_bytes)
  array = np.asarray(page.asarray())
  if page.axes.startswith('S'):
    array = np.moveaxis(array, 0, -1)
  array = array.reshape(page.imagelength, page.imagewidth, -1)
  if _is_shallow(page):
    return _shallow(page, array, name)
  count = _channels(page, array.shape[-1], name)
  array = array[..., :count].astype(array.dtype.newbyteorder('='), copy=False)
  if page.extrasamples[:1] == (_ASSOCIATED,) and (array[..., -1] != _opaque(array)).any():
    raise UserError(
      f'{name}: its deep colours are multiplied by its opacity; save it without opacity'
    )
  return array


def _opaque(array: np.ndarray) -> float:
  return 1.0 if array.dtype.kind == 'f' else float(np.iinfo(array.dtype).max)


def _check_whole(page: tifffile.TiffPage, file_bytes: int) -> None:
  """Refuses a page whose parts are not all in the file: they would be read as zeros."""
  parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
  if not parts or any(not count or start + count > file_bytes for start, count in parts):
    raise ValueError('a part of its pixels is not there')
  needed = math.prod(page.shape) * page.bitspersample / 8
  if page.compression == tifffile.COMPRESSION.NONE and sum(page.databytecounts) < needed:
    raise ValueError('a part of its pixels is not there')


def _channels(page: tifffile.TiffPage, count: int, name: str) -> int:
  """Returns how many channels have a meaning: colours, and opacity where there is one."""
  colours = 1 if page.photometric in _GREY else 3
  opacity = count > colours and page.extrasamples[0] in _OPACITY
  if count < colours or (colours == 1 and count > 1 and not opacity):
    raise UserError(f'{name}: has {count} channels; convert it to grey or RGB')
  return colours + opacity


def _shallow(page: tifffile.TiffPage, array: np.ndarray, name: str) -> np.ndarray:
  """Makes grey or RGB, uint8, of what up to 8 bits mean."""
  kinds = tifffile.PHOTOMETRIC
  if page.photometric == kinds.PALETTE:
    colours: np.ndarray = (np.asarray(page.colormap) >> 8).astype(np.uint8).T[array[..., 0]]
    return colours
  levels = array.astype(np.uint8) * np.uint8(255 // (2**page.bitspersample - 1))
  if page.photometric == kinds.SEPARATED:
    if levels.shape[-1] < 4:
      raise UserError(f'{name}: has {levels.shape[-1]} inks; convert it to RGB')
    return _converted(levels[..., :4], 'CMYK', 'RGB')
  if page.photometric == kinds.YCBCR:
    # Whoever decodes JPEG makes RGB of it.
    rgb = levels[..., :3]
    return rgb if page.compression == _JPEG else _converted(rgb, 'YCbCr', 'RGB')
  levels = levels[..., : _channels(page, levels.shape[-1], name)]
  if page.photometric == kinds.MINISWHITE:
    levels[..., 0] = 255 - levels[..., 0]
  if page.extrasamples[:1] == (_ASSOCIATED,):
    modes = ('La', 'LA') if levels.shape[-1] == 2 else ('RGBa', 'RGBA')
    return _converted(levels, *modes)
  return levels


def _converted(array: np.ndarray, mode: str, wanted: str) -> np.ndarray:
  contiguous = np.ascontiguousarray(array)
  size = (array.shape[1], array.shape[0])
  return np.asarray(Image.frombytes(mode, size, contiguous.tobytes()).convert(wanted))
