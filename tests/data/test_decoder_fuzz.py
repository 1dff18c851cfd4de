"""Files of any format, depth, order of planes, orientation and metadata, drawn by hypothesis.

Each is read to just the pixels that were written, as docs/images.md gives them a meaning, or it is
refused in one line. What is written is also read by OpenCV, an independent decoder, and of lossy
files its pixels count.
"""

import collections
import contextlib
import io
import os
import zlib
from typing import NamedTuple

import cv2
import hypothesis
import imagecodecs
import numpy as np
import pytest
from hypothesis import strategies as st

from patch_svdd_jax.data import images, picture, value_range
from patch_svdd_jax.errors import UserError
from tests.data.image_files import chunk, encoded, exif, png, tiff
from tests.data.test_orientation import TURNS, with_exif

BITS = (8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32)
# Lossy decoders round in places of their own.
TOLERANCE = 3


class File(NamedTuple):
  """A file that was written.

  Attributes:
    label: its kind.
    data: its content.
    values: [H, W, C] that were written.
    orientation: of EXIF; None where it has none.
    lossy: whether it stores other values.
    compared: whether OpenCV reads just what is stored.
  """

  label: str
  data: bytes
  values: np.ndarray
  orientation: int | None = None
  lossy: bool = False
  compared: bool = True


def draw_values(draw, dtype, channels):
  """Values [H, W, C] of random noise over a random part of what a type holds."""
  size = draw(st.integers(1, 20)), draw(st.integers(1, 20))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  shape = (*size, channels)
  if np.dtype(dtype).kind == 'f':
    low, width = draw(st.sampled_from([(0, 1), (0, 0.3), (-3, 10), (0, 255), (20, 15), (0, 6e4)]))
    return (low + width * rng.random(shape)).astype(dtype)
  info = np.iinfo(dtype)
  bits = draw(st.sampled_from([b for b in (1, 7, *BITS) if 2**b - 1 <= info.max]))
  low = draw(st.sampled_from([0, 0, 0, -5])) if info.min < 0 else 0
  return rng.integers(low, 2**bits, shape, dtype=dtype)


def metadata(draw):
  """Chunks of a PNG file, whole and broken ones."""
  found = b''
  for _ in range(draw(st.integers(0, 3))):
    kind = draw(st.sampled_from([b'tEXt', b'zTXt', b'iTXt', b'iCCP', b'pHYs', b'gAMA', b'vpAg']))
    content = draw(
      st.sampled_from([b'', b'a\0', b'Comment\0\0', b'Raw profile type exif\0\nx\n4\n'])
    )
    content += draw(st.sampled_from([b'', os.urandom(9), zlib.compress(bytes(2_000_000))]))
    found += chunk(kind, content)
    if draw(st.booleans()):
      found = found[:-1] + b'?'
  return found


def draw_png(draw):
  dtype = draw(st.sampled_from([np.uint8, np.uint16]))
  values = draw_values(draw, dtype, draw(st.integers(1, 4)))
  turn = draw(st.sampled_from([None, *TURNS]))
  extra = metadata(draw) + (chunk(b'eXIf', exif(turn)) if turn else b'') + metadata(draw)
  interlaced = draw(st.booleans())
  return File(
    f'PNG {values.dtype}', png(values, metadata=extra, interlaced=interlaced), values, turn
  )


TIFF_TYPES = ('u1', 'u2', 'u4', 'i1', 'i2', 'i4', 'f2', 'f4', 'f8')


def draw_tiff(draw):
  values = draw_values(
    draw, np.dtype(draw(st.sampled_from(TIFF_TYPES))), draw(st.sampled_from([1, 3, 4]))
  )
  compression = draw(st.sampled_from([None, 'lzw', 'deflate', 'zstd', 'packbits', 'lzma']))
  options = {
    'compression': compression,
    'byteorder': draw(st.sampled_from('<>')),
    'planar': draw(st.booleans()),
    'bigtiff': draw(st.booleans()),
    'predictor': compression in ('lzw', 'deflate', 'zstd', 'packbits') and draw(st.booleans()),
    'tile': draw(st.sampled_from([None, (16, 16)])),
    'rowsperstrip': draw(st.integers(1, 20)),
  }
  if options['tile']:
    del options['rowsperstrip']
  if values.shape[-1] == 4:
    options['extrasamples'] = ['unassalpha']
  turn = draw(st.sampled_from([None, *TURNS]))
  tags = [(274, 3, 1, turn, True)] if turn else []
  # Statistics and a range for display, which count for nothing, and EXIF behind the end.
  tags += draw(st.sampled_from([[], [(281, 3, 1, 99, True)], [(34665, 4, 1, 2**31, True)]]))
  data = tiff(squeezed(values), extratags=tags, **options)
  # OpenCV takes planes for pixels, turns TIFF but no other format, and multiplies by opacity; a
  # predictor of PackBits, which we refuse, it leaves as it is.
  mixed = options['planar'] or (compression == 'packbits' and options['predictor'])
  mixed |= values.dtype.itemsize == 1 and values.shape[-1] == 4
  return File(
    f'TIFF {values.dtype} {compression}', data, values, turn, compared=not (mixed or turn)
  )


def draw_by_pillow(draw):
  kind = draw(st.sampled_from(['BMP', 'WEBP', 'JPEG2000', 'GIF', 'TIFF']))
  channels = {'BMP': [1, 3], 'WEBP': [3, 4], 'GIF': [1]}.get(kind, [1, 3, 4])
  values = draw_values(draw, np.uint8, draw(st.sampled_from(channels)))
  if values.shape[-1] == 4:
    values[..., 3] |= 1  # WebP keeps no colour below what is fully transparent
  turn, options = None, {}
  if kind == 'WEBP':
    options = {'lossless': True}
    turn = draw(st.sampled_from([None, *TURNS]))
    if turn:
      options['exif'] = with_exif(turn)
  multiplied = kind == 'TIFF' and values.shape[-1] == 4
  data = encoded(squeezed(values), kind, **options)
  return File(kind, data, values, turn, compared=not multiplied)


def squeezed(values):
  """Grey values [H, W, 1] as [H, W]; others as they are."""
  return values[..., 0] if values.shape[-1] == 1 else values


def draw_deep_jpeg_2000(draw):
  values = draw_values(draw, np.uint16, draw(st.sampled_from([1, 3])))
  codec = draw(st.sampled_from(['jp2', 'j2k']))
  data = imagecodecs.jpeg2k_encode(squeezed(values), level=0, codecformat=codec)
  return File('deep JPEG 2000', data, values)


def draw_jpeg(draw):
  values = draw_values(draw, np.uint8, draw(st.sampled_from([1, 3])))
  turn = draw(st.sampled_from([None, *TURNS]))
  options = {
    'quality': draw(st.integers(30, 100)),
    'progressive': draw(st.booleans()),
    'subsampling': draw(st.integers(0, 2)),
  }
  if turn:
    options['exif'] = with_exif(turn)
  data = encoded(squeezed(values), 'JPEG', **options)
  return File('JPEG', data, values, turn, lossy=True)


@st.composite
def files(draw):
  """Draws a file."""
  kinds = [draw_png, draw_tiff, draw_tiff, draw_by_pillow, draw_deep_jpeg_2000, draw_jpeg]
  return draw(st.sampled_from(kinds))(draw)


def by_opencv(data):
  """What OpenCV reads, [H, W, C] in RGB order, not turned; None where it does not."""
  flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
  try:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  except cv2.error:
    return None
  if found is None or found.ndim == 2:
    return None if found is None else found[..., None]
  return found[..., (2, 1, 0, *range(3, found.shape[-1]))]


def grey_levels(values, black, white):
  """The declared meaning, in float64 and Python's whole numbers."""
  if values.dtype == np.uint8:
    return values
  if black == 0 and white + 1 in {2.0**bits for bits in BITS}:
    shift = int(white).bit_length() - 8
    return (np.floor(values.astype(np.float64)).astype(np.int64) >> shift).clip(0, 255)
  return np.rint(255 * (values.astype(np.float64) - black) / (white - black)).clip(0, 255)


def check(file, other_range):
  """Reads a file by its own range, and by another; both as images and as masks."""
  expected = file.values
  if file.lossy:
    expected = by_opencv(file.data)
    assert expected is not None
  colours = expected[..., : 1 if expected.shape[-1] < 3 else 3]
  turn = TURNS[file.orientation or 1]
  whole = colours.dtype.kind != 'f'
  finest = value_range.Extent(whole, float(colours.min()), float(colours.max()))
  deep = [] if colours.dtype == np.uint8 else [finest]
  negative = whole and finest.least < 0
  for within in (value_range.resolve((), deep), other_range):
    try:
      found = images.decode_image(file.data, 'a/7.png', within)
    except UserError as error:
      line = str(error)
    else:
      levels = turn(grey_levels(colours, *within))
      assert found.shape == (*levels.shape[:2], 3)
      difference = np.abs(found.astype(int) - levels).max()
      assert difference <= (TOLERANCE if file.lossy else 0), file.label
      continue
    assert line.startswith('a/7.png: ')
    assert '\n' not in line
    may_be_refused = within is other_range or negative or 'with a predictor' in line
    assert may_be_refused, (file.label, line)
  if not file.lossy:
    with contextlib.suppress(UserError):
      mask = (colours > 0).any(-1)
      if expected.shape[-1] in (2, 4):
        mask &= expected[..., -1] > 0
      np.testing.assert_array_equal(images.decode_mask(file.data, 'x'), turn(mask))
  assert picture.may_be_deep(io.BytesIO(file.data)) == bool(deep)


def agrees_with_opencv(file):
  """Whether OpenCV reads what was written, so that the writer is right; None where it cannot."""
  found = by_opencv(file.data)
  if file.lossy or not file.compared or found is None:
    return None
  if (found.dtype, found.shape) != (file.values.dtype, file.values.shape):
    return None
  return bool((found == file.values).all())


RANGES = st.sampled_from(
  [(0.0, 255.0), (0.0, 1023.0), (0.0, 4095.0), (0.0, 65535.0), (0.0, 1.0), (-3.0, 7.0), (5.0, 6.0)]
)


def run(count):
  seen = collections.Counter()

  @hypothesis.settings(
    max_examples=count,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(files(), RANGES)
  def fuzz(file, other_range):
    check(file, other_range)
    agreed = agrees_with_opencv(file)
    assert agreed is not False, file.label
    seen['all'] += 1
    seen['agreed'] += bool(agreed)
    seen[file.label] += 1

  fuzz()
  return seen


def test_hundreds_of_files_are_read_as_they_were_written_or_refused():
  seen = run(300)
  assert len(seen) > 20
  assert seen['agreed'] > 60


@pytest.mark.slow
def test_ten_thousand_files_are_read_as_they_were_written_or_refused():
  seen = run(10_000)
  print(seen)
  assert seen['all'] >= 10_000
