"""What a PNG file is made of: the chunks that pixels need, and EXIF; all others are left out.

Text, colour profiles and whatever else a file carries along may be damaged, unusual or huge, and
decoders refuse the whole file for it. Its pixels are fine.
"""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_ESSENTIAL = (b'IHDR', b'PLTE', b'tRNS', b'IDAT')
_END = b'\0\0\0\0IEND\xaeB`\x82'
# How ImageMagick wrote EXIF before there was a chunk for it.
_PROFILES = (b'Raw profile type exif', b'Raw profile type APP1')
_PROFILE_BYTES = 2**20
# Of each pass of an interlaced file the first row and column, and the steps to the next.
_ADAM7 = (
  (0, 0, 8, 8),
  (0, 4, 8, 8),
  (4, 0, 8, 4),
  (0, 2, 4, 4),
  (2, 0, 4, 2),
  (0, 1, 2, 2),
  (1, 0, 2, 1),
)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields the kind of each chunk before the last one, and where it begins and ends.

  Raises:
    ValueError: one is cut short.
  """
  at = len(SIGNATURE)
  while at < len(data):
    if at + 8 > len(data):
      raise ValueError('a chunk is cut short')
    length, kind = struct.unpack_from('>I4s', data, at)
    if kind == b'IEND':
      return
    end = at + 12 + length
    if end > len(data):
      raise ValueError(f'chunk {kind.decode("ascii", "replace")} is cut short')
    yield kind, at, end
    at = end


def split(data: bytes) -> tuple[bytes, bytes]:
  """Returns a PNG file without metadata, and the content of its EXIF, empty where there is none.

  Raises:
    ValueError: a chunk that pixels need is damaged or cut short.
  """
  kept, exif, profile = [SIGNATURE], b'', b''
  for kind, start, end in _chunks(data):
    if kind in _ESSENTIAL:
      if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != _checksum(data, end):
        raise ValueError(f'chunk {kind.decode()} is damaged')
      kept.append(data[start:end])
    elif kind == b'eXIf':
      exif = data[start + 8 : end - 4]
    elif kind in (b'tEXt', b'zTXt') and data[start + 8 : start + 40].startswith(_PROFILES):
      profile = _profile(kind, data[start + 8 : end - 4])
    elif not kind[0] & 0x20:
      raise ValueError(f'chunk {kind.decode("ascii", "replace")} is unknown')
  return b''.join([*kept, _END]), exif or profile


def _checksum(data: bytes, end: int) -> int:
  return int.from_bytes(data[end - 4 : end], 'big')


def _profile(kind: bytes, content: bytes) -> bytes:
  """Returns the EXIF in text of hexadecimal digits; empty where it cannot be read."""
  _, _, text = content.partition(b'\0')
  try:
    if kind == b'zTXt':
      text = zlib.decompressobj().decompress(text[1:], _PROFILE_BYTES)
    return bytes.fromhex(b''.join(text.split(b'\n')[3:]).decode())
  except (ValueError, zlib.error):
    return b''


def passes(essential: bytes) -> Iterator[tuple[slice, slice, bytes]]:
  """Yields the seven pictures of an interlaced file as files of their own, which are not.

  imagecodecs decodes interlaced files too, but libpng complains on standard error.

  Args:
    essential: a PNG file, as `split` returns it.

  Yields:
    The rows and columns of a picture, and its file.
  """
  header = essential[16:29]
  width, height, bits, kind = struct.unpack_from('>IIBB', header)
  contents = (
    essential[start + 8 : end - 4] for name, start, end in _chunks(essential) if name == b'IDAT'
  )
  stream, at = zlib.decompress(b''.join(contents)), 0
  for top, left, down, right in _ADAM7:
    columns, rows = -(-(width - left) // right), -(-(height - top) // down)
    if columns < 1 or rows < 1:
      continue
    length = rows * (1 + -(-columns * bits * _CHANNELS[kind] // 8))
    if at + length > len(stream):
      raise ValueError('its pixels are cut short')
    own = struct.pack('>II', columns, rows) + header[8:12] + b'\0'
    pixels = zlib.compress(stream[at : at + length], 1)
    file = SIGNATURE + _chunk(b'IHDR', own) + _chunk(b'IDAT', pixels) + _END
    yield slice(top, None, down), slice(left, None, right), file
    at += length


def _chunk(kind: bytes, content: bytes) -> bytes:
  body = kind + content
  return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))


def is_interlaced(data: bytes) -> bool:
  """Returns whether a PNG file, which has a header, is interlaced."""
  return data[28] == 1


def _header(data: bytes) -> tuple[int, int, int]:
  """Returns width, height and bits a channel."""
  if data[12:16] != b'IHDR' or len(data) < 26:
    raise ValueError('there is no header')
  width, height, bits = struct.unpack_from('>IIB', data, 16)
  return width, height, bits


def size(data: bytes) -> tuple[int, int]:
  """Returns (width, height) in pixels.

  Raises:
    ValueError: there is no header.
  """
  return _header(data)[:2]


def bits(data: bytes) -> int:
  """Returns the bits a channel, of a file or its first 26 bytes; errors as for `size`."""
  return _header(data)[2]


def pixels(data: bytes) -> str:
  """Returns the bits and channels of a file, which has a header, in words."""
  names = {0: 'grey', 2: 'RGB', 3: 'P', 4: 'grey and alpha', 6: 'RGBA'}
  return f'{bits(data)}-bit {names.get(data[25], "of an unknown kind")}'
