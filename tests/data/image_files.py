"""Image files written from the specifications or by other libraries than those that read them."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def encoded(array, kind, **options):
  """The file of Pillow."""
  buffer = io.BytesIO()
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def chunk(kind, content):
  body = kind + content
  return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))


def png(array, *, metadata=b'', interlaced=False):
  """A PNG file of u8 or u16 [H, W] or [H, W, 1 to 4], metadata before its pixels."""
  array = array.reshape(*array.shape[:2], -1)
  height, width, channels = array.shape
  bits = array.dtype.itemsize * 8
  kind = (bits, _COLOUR_TYPES[channels], 0, 0, int(interlaced))
  header = struct.pack('>IIBBBBB', width, height, *kind)
  passes = [array]
  if interlaced:  # Adam7
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [array[y::down, x::right] for y, x, down, right in (*starts, (1, 0, 2, 1))]
  stored = array.dtype.newbyteorder('>')
  rows = b''.join(
    b'\0' + row.astype(stored).tobytes() for part in passes if part.size for row in part
  )
  return b''.join(
    (
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', header),
      metadata,
      chunk(b'IDAT', zlib.compress(rows)),
      chunk(b'IEND', b''),
    )
  )


def exif(orientation):
  """EXIF content that holds an orientation."""
  return b'MM\0*\0\0\0\x08\0\x01' + struct.pack('>HHIHHI', 0x0112, 3, 1, orientation, 0, 0)


def tiff(array, *, planar=False, **options):
  """A TIFF file of [H, W] or [H, W, 3 or 4]."""
  colour = array.ndim == 3
  options.setdefault('photometric', 'rgb' if colour else 'minisblack')
  if planar and colour:
    array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    options['planarconfig'] = 'separate'
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, array, **options)
  return buffer.getvalue()
