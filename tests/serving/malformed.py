"""Uploads that are no images, each with what it was made by; drawn from a seed."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

MAGIC = {
  'PNG': b'\x89PNG\r\n\x1a\n',
  'JPEG': b'\xff\xd8\xff\xe0\x00\x10JFIF\0',
  'BMP': b'BM',
  'TIFF': b'II*\0\x08\0\0\0',
}


def encoded(rng, kind, **options):
  """A small photograph-like file."""
  pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def chunk(kind, content):
  body = kind + content
  return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))


def png(width, height, data, *extra):
  """A PNG whose header says what it likes."""
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunks = [chunk(b'IHDR', header), *extra, chunk(b'IDAT', data), chunk(b'IEND', b'')]
  return MAGIC['PNG'] + b''.join(chunks)


def huge(rng, kind):
  """Dimensions beyond any bound, and next to no data."""
  width, height = (int(2 ** rng.uniform(14, 31)) for _ in range(2))
  if kind == 'PNG':
    return png(width, height, zlib.compress(bytes(100)))
  if kind == 'BMP':
    start = struct.pack('<2sIHHI', b'BM', 200, 0, 0, 54)
    return start + struct.pack('<IiiHHIIiiII', 40, width, height, 1, 24, 0, 100, 1, 1, 0, 0)
  if kind == 'JPEG':
    # 65535 is its largest.
    head = struct.pack('>HBHHB', 11, 8, 65500, 65500, 1) + b'\1\x11\0'
    return b'\xff\xd8\xff\xc0' + head + b'\xff\xda\0\x08\1\1\0\0\x3f\0' + bytes(50) + b'\xff\xd9'
  tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1)]
  tags += [(278, height), (279, 100)]
  entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags)
  return MAGIC['TIFF'] + struct.pack('<H', len(tags)) + entries + bytes(200)


def bomb(rng):
  """Little that unpacks to much: pixels, text or a colour profile of a PNG."""
  zeros = zlib.compress(bytes(30_000_000), 9)
  which = int(rng.integers(3))
  if which == 0:
    return png(100_000, 100, zeros)
  kind, start = ((b'zTXt', b'Comment\0\0'), (b'iCCP', b'profile\0\0'))[which - 1]
  return png(100_000, 100, zlib.compress(bytes(1000)), chunk(kind, start + zeros))


def archive():
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('part.png', bytes(10_000_000))
  return buffer.getvalue()


def exif_junk(rng):
  """A JPEG cut off behind metadata that is junk."""
  junk = b'Exif\0\0' + rng.bytes(int(rng.integers(0, 400)))
  start = b'\xff\xd8\xff\xe1' + struct.pack('>H', len(junk) + 2) + junk
  return start + encoded(rng, 'JPEG')[2 : int(rng.integers(3, 300))]


def flipped(rng, kind):
  """Bits of the header flipped, and the rest cut off, so that no image is left."""
  data = bytearray(encoded(rng, kind)[:200])
  for place in rng.integers(0, 40, int(rng.integers(1, 6))):
    data[place] ^= 1 << int(rng.integers(8))
  return bytes(data)


def uploads(seed, count):
  """(what it is, content) of each."""
  rng = np.random.default_rng(seed)
  kinds = list(MAGIC)
  zipped = archive()
  for number in range(count):
    kind = kinds[number % 4]
    match int(rng.integers(8)):
      case 0:
        whole = encoded(rng, kind)
        yield f'{kind} cut off', whole[: int(rng.integers(1, len(whole) // 2))]
      case 1:
        yield f'{kind} with bits flipped', flipped(rng, kind)
      case 2:
        yield f'{kind} of huge dimensions', huge(rng, kind)
      case 3:
        yield 'noise', rng.bytes(int(rng.integers(1, 2000)))
      case 4:
        yield f'noise that begins as {kind}', MAGIC[kind] + rng.bytes(int(rng.integers(0, 2000)))
      case 5:
        yield 'EXIF junk', exif_junk(rng)
      case 6 if number % 5 == 0:
        yield 'bomb', bomb(rng)
      case 6:
        yield 'another kind', encoded(rng, ('TGA', 'PCX', 'PPM', 'ICO')[int(rng.integers(4))])
      case _:
        yield 'archive', zipped[: int(rng.integers(4, len(zipped)))]
