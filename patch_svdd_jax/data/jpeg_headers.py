"""The headers of JPEG and JPEG 2000 files: bits a channel, size, EXIF."""

import io
import struct
from collections.abc import Iterator
from typing import Any

JPEG = b'\xff\xd8\xff'
JPEG_2000 = (b'\0\0\0\x0cjP  \r\n\x87\n', b'\xff\x4f\xff\x51')
SIGNATURES = (JPEG, *JPEG_2000)
_CODESTREAM = b'\xff\x4f\xff\x51'
_END = b'\xff\xd9'
# Start of frame, of any kind; C4, C8 and CC among them are something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _APP1 = 0xDA, 0xE1
# A box may come before the codestream, as of a colour profile.
_SEARCHED = 2**20


def _segments(file: Any) -> Iterator[tuple[int, bytes]]:
  """Yields the marker and content of each segment of a JPEG file before its pixels."""
  file.seek(2)
  while file.read(1) == b'\xff':
    marker = file.read(1)
    while marker == b'\xff':  # fill bytes
      marker = file.read(1)
    if not marker or marker[0] == _SCAN:
      return
    length = file.read(2)
    if len(length) < 2:
      return
    yield marker[0], file.read(max(0, struct.unpack('>H', length)[0] - 2))


def _frame(file: Any) -> tuple[int, int, int]:
  """Returns width, height and bits a channel of a JPEG or JPEG 2000 file."""
  file.seek(0)
  if file.read(3) == JPEG:
    for marker, content in _segments(file):
      if marker in _FRAMES and len(content) > 5:
        bits, height, width = struct.unpack_from('>BHH', content)
        return width, height, bits
    raise ValueError('there is no frame')
  file.seek(0)
  start = file.read(_SEARCHED)
  at = start.find(_CODESTREAM)
  if at < 0 or len(start) < at + 44:
    raise ValueError('there is no codestream')
  right, bottom, left, top = struct.unpack_from('>4I', start, at + 8)
  (components,) = struct.unpack_from('>H', start, at + 40)
  depths = start[at + 42 : at + 42 + 3 * components : 3]
  if any(depth & 0x80 for depth in depths):
    raise ValueError('its numbers are below 0, too')
  return right - left, bottom - top, max(depth + 1 for depth in depths)


def bits(file: Any) -> int:
  """Returns the bits a channel of an open file.

  Raises:
    ValueError: no header says so.
  """
  return _frame(file)[2]


def size(file: Any) -> tuple[int, int]:
  """Returns (width, height) in pixels of an open file; errors as for `bits`."""
  return _frame(file)[:2]


def exif(data: bytes) -> bytes:
  """Returns the EXIF content of a JPEG file, empty where there is none."""
  found = (content for marker, content in _segments(io.BytesIO(data)) if marker == _APP1)
  return next((content for content in found if content.startswith(b'Exif\0\0')), b'')


def check_end(data: bytes) -> None:
  """Refuses a file whose end is missing, of whose pixels imagecodecs makes up the rest.

  No pixels contain the mark of the end.

  Raises:
    ValueError: it is missing.
  """
  file = io.BytesIO(data)
  if data.startswith(JPEG):
    for _ in _segments(file):
      pass
  if data.find(_END, file.tell()) < 0:
    raise ValueError('the end is missing')
