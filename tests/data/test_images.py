import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RGB[..., 0]
HIGH = (0.0, 65535.0)
DEEP = np.random.default_rng(1).integers(0, 2**16, (6, 5, 3), dtype=np.uint16)


def encoded(image, kind, **options):
  buffer = io.BytesIO()
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def png16(array):
  """A 16-bit PNG written from the specification; Pillow writes none in colour."""

  def chunk(kind, content):
    body = kind + content
    return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))

  height, width, channels = array.shape
  header = struct.pack('>IIBBBBB', width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in array)
  chunks = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + chunks


def tiff16(array, order):
  buffer = io.BytesIO()
  kind = 'minisblack' if array.ndim == 2 else 'rgb'
  tifffile.imwrite(buffer, array, byteorder=order, photometric=kind)
  return buffer.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF'])
def test_lossless_rgb_and_grey_come_back_exactly(kind):
  np.testing.assert_array_equal(images.decode_image(encoded(RGB, kind), 'x', HIGH), RGB)
  grey = images.decode_image(encoded(GREY, kind), 'x', HIGH)
  np.testing.assert_array_equal(grey, np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize('compression', ['tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
def test_compressed_tiff(compression):
  data = encoded(RGB, 'TIFF', compression=compression)
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH), RGB)


def test_jpeg_is_close():
  smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (24, 16, 3))
  decoded = images.decode_image(
    encoded(np.ascontiguousarray(smooth), 'JPEG', quality=95), 'x', HIGH
  )
  assert np.abs(decoded.astype(int) - smooth).max() <= 4


def test_transparency_is_dropped():
  rgba = np.dstack([RGB, np.arange(30, dtype=np.uint8).reshape(6, 5)])
  np.testing.assert_array_equal(images.decode_image(encoded(rgba, 'PNG'), 'x', HIGH), RGB)
  grey_alpha = Image.merge('LA', [Image.fromarray(GREY), Image.new('L', (5, 6), 0)])
  decoded = images.decode_image(encoded(grey_alpha, 'PNG'), 'x', HIGH)
  np.testing.assert_array_equal(decoded, np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize('options', [{}, {'transparency': 1}, {'transparency': b'\x00\x80'}])
def test_palette(options):
  colours = np.array([[250, 10, 3], [4, 200, 90], [7, 8, 9]], np.uint8)
  indices = np.random.default_rng(2).integers(0, 3, (6, 5)).astype(np.uint8)
  image = Image.fromarray(indices).convert('L')
  image.putpalette(colours.ravel().tolist())
  data = encoded(image, 'PNG', **options)
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH), colours[indices])


def test_bilevel():
  bits = np.random.default_rng(3).random((6, 5)) < 0.5
  data = encoded(Image.fromarray(bits), 'PNG')
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH)[..., 1], bits * np.uint8(255))


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_16_bit_png_keeps_the_high_byte(channels):
  array = np.concatenate([DEEP, DEEP[..., :1]], axis=-1)[..., :channels]
  expected = array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, axis=-1)
  decoded = images.decode_image(png16(array), 'x', HIGH)
  np.testing.assert_array_equal(decoded, (expected >> 8).astype(np.uint8))


@pytest.mark.parametrize('order', '<>')
def test_16_bit_tiff_keeps_the_high_byte(order):
  grey = images.decode_image(tiff16(DEEP[..., 0], order), 'x', HIGH)
  np.testing.assert_array_equal(grey[..., 2], (DEEP[..., 0] >> 8).astype(np.uint8))
  colour = images.decode_image(tiff16(DEEP, order), 'x', HIGH)
  np.testing.assert_array_equal(colour, (DEEP >> 8).astype(np.uint8))


@pytest.mark.parametrize('factor', [256, 257])
def test_8_bit_values_survive_16_bits(factor):
  deep = GREY[..., None].astype(np.uint16) * factor
  np.testing.assert_array_equal(images.decode_image(png16(deep), 'x', HIGH)[..., 0], GREY)


def test_cmyk():
  cmyk = Image.merge('CMYK', [Image.new('L', (5, 6), v) for v in (255, 0, 0, 0)])
  decoded = images.decode_image(encoded(cmyk, 'TIFF'), 'x', HIGH)
  np.testing.assert_array_equal(decoded, np.broadcast_to(np.uint8([0, 255, 255]), (6, 5, 3)))


@pytest.mark.parametrize(
  ('orientation', 'turn'),
  [
    (1, lambda a: a),
    (2, lambda a: a[:, ::-1]),
    (3, lambda a: a[::-1, ::-1]),
    (4, lambda a: a[::-1]),
    (5, lambda a: a.swapaxes(0, 1)),
    (6, lambda a: np.rot90(a, -1)),
    (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
    (8, lambda a: np.rot90(a)),
  ],
)
def test_exif_orientation_is_applied(orientation, turn):
  exif = Image.Exif()
  exif[0x0112] = orientation
  upright = images.decode_image(encoded(RGB, 'PNG', exif=exif), 'x', HIGH)
  np.testing.assert_array_equal(upright, turn(RGB))
  data, size, _ = images.normalise(encoded(RGB, 'JPEG', exif=exif), 'x', HIGH)
  assert size == turn(RGB).shape[:2]
  assert images.decode_image(data, 'x', HIGH).shape == turn(RGB).shape
  assert Image.open(io.BytesIO(data)).format == ('JPEG' if orientation == 1 else 'PNG')


@pytest.mark.parametrize('pixels', [RGB, GREY])
def test_normalise_keeps_the_bytes_of_jpeg_files(pixels):
  jpeg = encoded(pixels, 'JPEG')
  assert images.normalise(jpeg, 'x', HIGH)[:2] == (jpeg, (6, 5))
  found = images.decode_normalised(jpeg)
  assert found.shape == (6, 5, 3)
  np.testing.assert_array_equal(found, images.decode_image(jpeg, 'x', HIGH))


def test_normalise_changes_no_pixel():
  files = [encoded(GREY, 'PNG'), png16(DEEP), encoded(RGB, 'BMP')]
  files.append(encoded(Image.fromarray(RGB).convert('CMYK'), 'JPEG'))
  for data in files:
    normalised = images.normalise(data, 'x', HIGH)[0]
    plain = np.asarray(Image.open(io.BytesIO(normalised)))
    np.testing.assert_array_equal(plain, images.decode_image(data, 'x', HIGH))
    np.testing.assert_array_equal(plain, images.decode_normalised(normalised))


TRUTH = np.zeros((6, 5), bool)
TRUTH[1:3, 2:4] = True


def painted():
  """White under a transparency that only the marked pixels lack."""
  return np.dstack([np.full((6, 5, 3), 255, np.uint8), TRUTH * np.uint8(255)])


@pytest.mark.parametrize(
  'mask',
  [
    encoded(TRUTH * np.uint8(255), 'PNG'),
    encoded(TRUTH * np.uint8(1), 'PNG'),
    encoded(TRUTH * np.uint8(7), 'BMP'),
    encoded(Image.fromarray(TRUTH), 'PNG'),
    encoded(np.stack([TRUTH * np.uint8(200)] * 3, -1), 'TIFF'),
    encoded(np.stack([TRUTH * np.uint8(9), *[TRUTH * np.uint8(0)] * 2], -1), 'PNG'),
    encoded(painted(), 'PNG'),
    png16(TRUTH[..., None] * np.uint16(1)),
    tiff16(TRUTH * np.uint16(1), '>'),
    encoded(Image.fromarray(TRUTH.astype(np.float32)), 'TIFF'),
    encoded(Image.fromarray(TRUTH.astype(np.int32)), 'TIFF'),
  ],
)
def test_masks_of_every_kind(mask):
  decoded = images.decode_mask(mask, 'x')
  assert decoded.dtype == bool
  np.testing.assert_array_equal(decoded, TRUTH)


def test_jpeg_mask_ignores_compression_noise():
  truth = np.zeros((32, 32), bool)
  truth[5:20, 9:23] = True
  data = encoded(truth * np.uint8(255), 'JPEG', quality=60)
  assert (np.asarray(Image.open(io.BytesIO(data)))[~truth] > 0).any()
  np.testing.assert_array_equal(images.decode_mask(data, 'x'), truth)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'TIFF'])
@pytest.mark.parametrize('part', [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(kind, part):
  noise = np.random.default_rng(4).integers(0, 256, (40, 50, 3), dtype=np.uint8)
  data = encoded(noise, kind)
  with pytest.raises(UserError, match=r'^part/7\.png: is .*(damaged|no|not)'):
    images.decode_image(data[: int(len(data) * part)], 'part/7.png', HIGH)


def test_other_files_are_refused():
  for data in (b'<svg/>', encoded(RGB, 'PPM'), encoded(RGB, 'TGA'), b''):
    with pytest.raises(UserError, match='not a PNG, JPEG, BMP, TIFF, WebP, GIF or JPEG 2000 image'):
      images.decode_image(data, 'x', HIGH)


@pytest.mark.parametrize('side', [10_000, 60_000])
def test_decompression_bombs_are_refused(side):
  bomb = bytearray(png16(DEEP))
  bomb[16:24] = struct.pack('>II', side, side)
  bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
  with pytest.raises(UserError, match=r'^x: has more than \d+ million pixels'):
    images.decode_image(bytes(bomb), 'x', HIGH)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'JPEG'])
def test_the_header_has_the_size(kind):
  data = encoded(RGB, kind)
  assert images.stored_size(data, 'x') == (5, 6)
  with pytest.raises(UserError, match=r'x: is .*; replace or remove it'):
    images.stored_size(data[:6], 'x')


def test_an_unreadable_file_is_named(tmp_path):
  with pytest.raises(UserError, match=r'gone\.png'):
    images.read_bytes(tmp_path / 'gone.png')


def test_resize_filters():
  assert images.resize_image(RGB, (6, 5), 'bicubic') is RGB
  halves = images.resize_image(np.repeat(np.repeat(RGB, 2, 0), 4, 1), (6, 5), 'box')
  np.testing.assert_array_equal(halves, RGB)
  picked = images.resize_image(RGB, (3, 10), 'nearest')
  np.testing.assert_array_equal(picked, np.repeat(RGB[1::2], 2, axis=1))
  constant = np.full((9, 7, 3), 77, np.uint8)
  for name in images.FILTERS:
    assert (images.resize_image(constant, (4, 13), name) == 77).all()
  np.testing.assert_array_equal(
    images.resize_mask(TRUTH, (12, 10)), np.repeat(np.repeat(TRUTH, 2, 0), 2, 1)
  )


@pytest.mark.parametrize('size', [(5, 4), (128, 100), (31, 90), (1, 1), (203, 64)])
def test_the_mask_rule(size):
  """A pixel is what the mask has under its centre; where two meet there, one of them."""
  mask = np.random.default_rng(7).random((97, 64)) < 0.5
  places, inside = [], []
  for old, new in zip(mask.shape, size, strict=True):
    twice = (2 * np.arange(new) + 1) * old
    places.append(twice // (2 * new))
    inside.append(twice % (2 * new) > 0)
  clear = np.ix_(*inside)
  resized, expected = images.resize_mask(mask, size), mask[np.ix_(*places)]
  np.testing.assert_array_equal(resized[clear], expected[clear])
  for text in ('under its centre', 'nearest neighbour'):
    assert text in images.MASK_RULE
