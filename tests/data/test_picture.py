"""Kinds of image files: what each means, and that what is damaged is one line, whatever it is."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from patch_svdd_jax.data import images, picture
from patch_svdd_jax.errors import UserError
from tests.data.image_files import chunk, encoded, exif, png, tiff

BYTES, HIGH = (0.0, 255.0), (0.0, 65535.0)
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = RNG.integers(0, 2**16, (13, 9, 4), dtype=np.uint16)
GREYS = np.stack([GREY] * 3, -1)


def decode(data, within=BYTES):
  return images.decode_image(data, 'dir/x.png', within)


@pytest.mark.parametrize('suffix', picture.SUFFIXES)
def test_every_suffix_belongs_to_a_format_that_is_read(suffix):
  kinds = Image.registered_extensions()
  kind = kinds[suffix]
  data = encoded(RGB, kind, **({'lossless': True} if kind == 'WEBP' else {}))
  assert decode(data).shape == RGB.shape


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'JPEG2000'])
def test_lossless_formats_come_back(kind):
  options = {'lossless': True} if kind == 'WEBP' else {}
  np.testing.assert_array_equal(decode(encoded(GREY, kind, **options)), GREYS)
  if kind != 'GIF':
    np.testing.assert_array_equal(decode(encoded(RGB, kind, **options)), RGB)


def test_the_first_frame_counts():
  frames = [Image.fromarray(np.roll(GREY, i)) for i in range(3)]
  for kind in ('GIF', 'TIFF', 'WEBP', 'PNG'):
    options = {'lossless': True} if kind == 'WEBP' else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data), GREYS)
  mpo = encoded(RGB, 'MPO', save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())])
  jpeg = np.asarray(Image.open(io.BytesIO(mpo)))
  np.testing.assert_array_equal(decode(mpo), jpeg)


@pytest.mark.parametrize('interlaced', [False, True])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
@pytest.mark.parametrize('size', [(13, 9), (1, 1), (2, 5), (8, 8)])
def test_png_of_all_depths_interlaced_and_not(channels, interlaced, size, capfd):
  deep = DEEP[: size[0], : size[1], :channels]
  for array, within in ((deep, HIGH), ((deep >> 8).astype(np.uint8), BYTES)):
    colours = array[..., : 1 if channels < 3 else 3].repeat(3 if channels < 3 else 1, -1)
    expected = (colours >> 8 if array is deep else colours).astype(np.uint8)
    np.testing.assert_array_equal(decode(png(array, interlaced=interlaced), within), expected)
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_png_of_few_bits(bits):
  levels = RNG.integers(0, 2**bits, (7, 16)).astype(np.uint8)
  packed = np.packbits(
    np.unpackbits(levels[..., None], axis=-1)[..., 8 - bits :].reshape(7, -1), axis=-1
  )
  rows = b''.join(b'\0' + row.tobytes() for row in packed)
  data = b''.join(
    (
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', struct.pack('>IIBBBBB', 16, 7, bits, 0, 0, 0, 0)),
      chunk(b'IDAT', zlib.compress(rows)),
      chunk(b'IEND', b''),
    )
  )
  np.testing.assert_array_equal(decode(data)[..., 0], levels * (255 // (2**bits - 1)))


TIFF_KINDS = {
  'uint8': (np.uint8, BYTES),
  'uint16': (np.uint16, HIGH),
  'uint32': (np.uint32, (0.0, 2.0**32 - 1)),
  'int16': (np.int16, HIGH),
  'int32': (np.int32, HIGH),
  'float16': (np.float16, (0.0, 1.0)),
  'float32': (np.float32, (0.0, 1.0)),
  'float64': (np.float64, (0.0, 1.0)),
}
COMPRESSIONS = [None, 'lzw', 'deflate', 'zstd', 'packbits', 'lzma']


def stored(levels, kind):
  """Numbers of a kind whose grey levels are the given ones."""
  dtype = TIFF_KINDS[kind][0]
  if kind.startswith('float'):
    return (levels / 255).astype(dtype)
  if kind in ('int16', 'uint16', 'int32'):
    shift = 0 if kind == 'int16' else 8
    return (levels.astype(np.int64) << shift).astype(dtype)
  return (levels.astype(np.int64) << 8 * (np.dtype(dtype).itemsize - 1)).astype(dtype)


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('planar', [False, True])
@pytest.mark.parametrize('kind', TIFF_KINDS)
def test_tiff_of_all_numbers_planes_and_compressions(kind, planar, compression):
  within = BYTES if kind == 'int16' else TIFF_KINDS[kind][1]
  for levels in (GREY, RGB):
    values = stored(levels, kind)
    for order in '<>':
      options = {'compression': compression, 'byteorder': order, 'planar': planar}
      if compression in ('lzw', 'deflate', 'zstd') and kind != 'float64':
        options['predictor'] = True
      expected = GREYS if levels is GREY else RGB
      np.testing.assert_array_equal(decode(tiff(values, **options), within), expected)
  tiled = tiff(stored(RGB, kind), planar=planar, compression=compression, tile=(16, 16))
  np.testing.assert_array_equal(decode(tiled, within), RGB)
  big = tiff(stored(RGB, kind), planar=planar, compression=compression, bigtiff=True)
  np.testing.assert_array_equal(decode(big, within), RGB)


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_packed_tiff(bits):
  values = RNG.integers(0, 2**bits, (13, 9)).astype(np.uint16)
  data = tiff(values, bitspersample=bits)
  decoded = decode(data, (0.0, 2.0**bits - 1))
  np.testing.assert_array_equal(decoded[..., 0], values >> (bits - 8))


def test_tiff_of_other_colours():
  bits = GREY > 100
  for mode in ('1', 'L'):
    image = Image.fromarray(bits) if mode == '1' else Image.fromarray(GREY)
    data = bytearray(encoded(image, 'TIFF'))
    at = data.find(struct.pack('<HHI', 262, 3, 1))
    data[at + 8 : at + 10] = struct.pack('<H', 0)  # white is zero
    expected = 255 * (1 - bits.astype(int)) if mode == '1' else 255 - GREY.astype(int)
    np.testing.assert_array_equal(decode(bytes(data))[..., 1], expected)
  for compression in ('group3', 'group4', 'tiff_ccitt'):
    data = encoded(Image.fromarray(bits), 'TIFF', compression=compression)
    np.testing.assert_array_equal(decode(data)[..., 1], bits * np.uint8(255))
  palette = Image.fromarray(RGB).quantize(200)
  expected = np.asarray(palette.convert('RGB'))
  np.testing.assert_array_equal(decode(encoded(palette, 'TIFF')), expected)
  inks = Image.fromarray(RGB).convert('CMYK')
  np.testing.assert_array_equal(decode(encoded(inks, 'TIFF')), np.asarray(inks.convert('RGB')))
  smooth = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], (48, 32, 3))
  data = encoded(np.ascontiguousarray(smooth), 'TIFF', compression='jpeg', quality=95)
  assert np.abs(decode(data).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
  'array', [DEEP, (DEEP >> 8).astype(np.uint8), (DEEP / 65535).astype(np.float32)]
)
@pytest.mark.parametrize('planar', [False, True])
def test_opacity_of_tiff_is_dropped_from_images_and_kept_in_masks(array, planar):
  data = tiff(array, planar=planar, extrasamples=['unassalpha'])
  within = HIGH if array.dtype == np.uint16 else (0.0, 1.0)
  np.testing.assert_array_equal(decode(data, within), decode(tiff(array[..., :3]), within))
  white = np.full_like(array, array.max())
  white[..., 3] = np.where(GREY > 99, array.max(), 0)
  white = tiff(white, planar=planar, extrasamples=['unassalpha'])
  np.testing.assert_array_equal(images.decode_mask(white, 'x'), GREY > 99)


@pytest.mark.parametrize('codec', ['jp2', 'j2k'])
@pytest.mark.parametrize('channels', [1, 3])
def test_deep_jpeg_2000(codec, channels):
  values = DEEP[..., :channels].squeeze()
  data = imagecodecs.jpeg2k_encode(values, level=0, codecformat=codec)
  np.testing.assert_array_equal(
    decode(data, HIGH), np.broadcast_to((values.reshape(13, 9, -1) >> 8), (13, 9, 3))
  )
  assert images.stored_size(data, 'x') == (9, 13)


@pytest.mark.parametrize('channels', [1, 3])
def test_jpeg_of_12_bits(channels):
  smooth = np.broadcast_to(np.arange(0, 4096, 64, dtype=np.uint16)[:, None, None], (64, 48, 3))
  values = np.ascontiguousarray(smooth[..., :channels].squeeze())
  data = imagecodecs.jpeg8_encode(values, level=98, bitspersample=12)
  decoded = decode(data, (0.0, 4095.0))
  assert np.abs(decoded.astype(int) - (smooth >> 4)).max() <= 1
  with pytest.raises(UserError, match='holds values'):
    decode(data)
  assert images.stored_size(data, 'x') == (48, 64)


def test_jpeg_of_inks():
  inks = Image.fromarray(np.full((16, 16, 4), (10, 20, 30, 40), np.uint8), 'CMYK')
  decoded = decode(encoded(inks, 'JPEG', quality=100))
  expected = [(255 - ink) * (255 - 40) / 255 for ink in (10, 20, 30)]
  assert np.abs(decoded - np.array(expected)).max() <= 3


def shape_of(kind):
  """A file whose numbers have no meaning here."""
  if kind == 'complex':
    return tiff(np.ones((5, 5), np.complex64))
  if kind == 'deep palette':
    colours = RNG.integers(0, 2**16, (3, 2**16)).astype(np.uint16)
    return tiff(DEEP[..., 0], photometric='palette', colormap=colours)
  if kind == 'deep negative':
    return tiff(DEEP[..., 0], photometric='miniswhite')
  if kind == 'deep inks':
    return tiff(DEEP, photometric='separated')
  if kind == 'two greys':
    return tiff(DEEP[..., :2], photometric='minisblack', planarconfig='contig')
  if kind == 'volume':
    return tiff(
      np.zeros((16, 16, 16), np.uint16),
      volumetric=True,
      tile=(16, 16, 16),
      photometric='minisblack',
    )
  if kind == 'multiplied':
    return tiff(DEEP, extrasamples=['assocalpha'])
  if kind == 'predictor of packbits':
    return tiff(RGB, compression='packbits', predictor=True)
  if kind == 'lab':
    return tiff(RGB, photometric='cielab')
  return tiff(DEEP[..., :3], photometric='ycbcr')


@pytest.mark.parametrize(
  'kind',
  [
    *('complex', 'deep palette', 'deep negative', 'deep inks', 'two greys', 'volume'),
    *('multiplied', 'predictor of packbits', 'lab', 'deep ycbcr'),
  ],
)
def test_what_has_no_meaning_is_one_line(kind):
  with pytest.raises(UserError, match=r'^dir/x\.png: (has|is compressed|its deep)') as error:
    decode(shape_of(kind), HIGH)
  assert '\n' not in str(error.value)


HUGE = zlib.compress(bytes(3_000_000))
METADATA = {
  'text above 1 MB': chunk(b'zTXt', b'Comment\0\0' + HUGE),
  'plain text above 1 MB': chunk(b'tEXt', b'Comment\0' + b'x' * 2_000_000),
  'profile above 1 MB': chunk(b'iCCP', b'icc\0\0' + HUGE),
  'international text': chunk(b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + HUGE),
  'broken text': chunk(b'zTXt', b'Comment\0\0' + b'garbage'),
  'broken profile': chunk(b'iCCP', b'\0'),
  'broken check sum': chunk(b'tEXt', b'a\0b')[:-4] + b'oops',
  'empty exif': chunk(b'eXIf', b''),
  'short exif': chunk(b'eXIf', b'MM\0*'),
  'exif of nonsense': chunk(b'eXIf', b'II*\0' + bytes(range(200))),
  'exif beyond its end': chunk(b'eXIf', b'MM\0*\xff\xff\xff\xff'),
  'exif of many entries': chunk(b'eXIf', b'MM\0*\0\0\0\x08\xff\xff' + bytes(30)),
  'orientation as text': chunk(
    b'eXIf', b'MM\0*\0\0\0\x08\0\x01' + struct.pack('>HHI4sI', 0x0112, 2, 4, b'six\0', 0)
  ),
  'raw profile': chunk(b'tEXt', b'Raw profile type exif\0\nexif\n     4\nzz\n'),
  'short raw profile': chunk(b'tEXt', b'Raw profile type exif\0'),
  'raw profile, odd digits': chunk(b'tEXt', b'Raw profile type exif\0\nexif\n 3\n456\n'),
  'compressed raw profile': chunk(b'zTXt', b'Raw profile type APP1\0\0garbage'),
  'huge raw profile': chunk(b'zTXt', b'Raw profile type exif\0\0' + HUGE),
  'gamma of nothing': chunk(b'gAMA', b''),
  'physical size of nothing': chunk(b'pHYs', b'\0'),
  'animation': chunk(b'acTL', b'\0'),
  'private': chunk(b'vpAg', b'x' * 9),
}


@pytest.mark.parametrize('what', METADATA)
def test_metadata_of_png_spoils_no_pixel(what):
  for array, within in ((RGB, BYTES), (DEEP, HIGH)):
    data = png(array, metadata=METADATA[what])
    expected = RGB if array is RGB else (DEEP[..., :3] >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode(data, within), expected)
    np.testing.assert_array_equal(
      images.decode_normalised(images.normalise(data, 'x', within).content), expected
    )
    assert images.stored_size(data, 'x') == (9, 13)
  mask = png((GREY > 9) * np.uint8(255), metadata=METADATA[what])
  np.testing.assert_array_equal(images.decode_mask(mask, 'x'), GREY > 9)


EXIF = [b'', b'MM\0*', b'II*\0' + bytes(range(150)), b'MM\0*\xff\xff\xff\xff', b'\xff' * 900]
EXIF += [b'MM\0*\0\0\0\x08\xff\xff' + bytes(30), exif(6)[:-9]]


@pytest.mark.parametrize('content', EXIF)
def test_exif_of_other_formats_spoils_no_pixel(content):
  expected = decode(encoded(RGB, 'JPEG'))
  jpeg = encoded(RGB, 'JPEG', exif=b'Exif\0\0' + content)
  np.testing.assert_array_equal(decode(jpeg), expected)
  jpeg = encoded(RGB, 'JPEG', icc_profile=b'x' * 3_000_000, comment=b'\xff' * 9)
  np.testing.assert_array_equal(decode(jpeg), expected)
  webp = encoded(RGB, 'WEBP', lossless=True, exif=content, icc_profile=b'nonsense')
  np.testing.assert_array_equal(decode(webp), RGB)
  tag = (34665, 4, 1, 2**31, True)  # EXIF that lies behind the end
  np.testing.assert_array_equal(decode(tiff(RGB, extratags=[tag])), RGB)


def samples_of_all_kinds():
  """Names and contents of whole files."""
  noise = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
  deep = noise.astype(np.uint16) * 257
  yield from (
    (kind, encoded(noise, kind))
    for kind in ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'JPEG2000')
  )
  yield 'progressive JPEG', encoded(noise, 'JPEG', progressive=True)
  yield 'deep PNG', png(deep)
  yield 'deep interlaced PNG', png(deep, interlaced=True)
  yield 'deep JPEG', imagecodecs.jpeg8_encode(deep >> 4, level=95, bitspersample=12)
  yield 'deep JPEG 2000', imagecodecs.jpeg2k_encode(deep, level=0)
  for compression in ('none', 'lzw', 'deflate', 'packbits', 'zstd'):
    for planar in (False, True):
      for array in (noise, deep, noise / np.float32(255)):
        yield f'TIFF {compression}', tiff(array, compression=compression, planar=planar)
  for compression in ('tiff_lzw', 'jpeg', 'packbits'):
    yield f'TIFF of Pillow {compression}', encoded(noise, 'TIFF', compression=compression)


def read_or_refuse(data):
  """The samples of a file; None where it is refused, which takes one line."""
  try:
    return picture.read(data, 'dir/7.png').samples
  except UserError as error:
    line = str(error)
  assert line.startswith('dir/7.png: ')
  assert '\n' not in line
  return None


def test_what_is_cut_short_is_one_line_and_never_other_pixels():
  for name, data in samples_of_all_kinds():
    whole = picture.read(data, 'x').samples
    ends = {*np.linspace(0, len(data) - 1, 40).astype(int), len(data) - 2, len(data) - 9}
    for end in ends:
      found = read_or_refuse(data[:end])
      assert found is None or np.array_equal(found, whole), (name, end)


def test_what_is_garbled_is_one_line():
  rng = np.random.default_rng(3)
  for _, data in samples_of_all_kinds():
    for _ in range(15):
      garbled = bytearray(data)
      for place in rng.integers(0, len(data), 6):
        garbled[place] = rng.integers(256)
      read_or_refuse(bytes(garbled))
      try:
        picture.may_be_deep(io.BytesIO(garbled))
        images.stored_size(bytes(garbled), 'x')
      except UserError:
        pass
      except Exception:  # noqa: BLE001, as its docstring says
        pass


def test_a_damaged_check_sum_of_pixels_is_one_line():
  data = bytearray(png(RGB))
  data[data.find(b'IDAT') + 8] ^= 1
  with pytest.raises(UserError, match='chunk IDAT is damaged'):
    decode(bytes(data))


@pytest.mark.parametrize('side', [10_000, 60_000])
def test_files_of_too_many_pixels_are_refused_in_every_format(side):
  header = struct.pack('>IIBBBBB', side, side, 16, 2, 0, 0, 0)
  body = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
  deep_jpeg = imagecodecs.jpeg8_encode(DEEP[..., 0] >> 4, bitspersample=12)
  at = deep_jpeg.find(b'\xff\xc1')
  at = at if at > 0 else deep_jpeg.find(b'\xff\xc0')
  jpeg = deep_jpeg[: at + 5] + struct.pack('>HH', side, side) + deep_jpeg[at + 9 :]
  page = bytearray(tiff(DEEP[..., 0]))
  with tifffile.TiffFile(io.BytesIO(page)) as file:
    tags = file.pages[0].tags
    for code in (256, 257):
      struct.pack_into('<HHII', page, tags[code].offset, code, 4, 1, side)
  for data in (b'\x89PNG\r\n\x1a\n' + body, jpeg, bytes(page)):
    for read in (decode, lambda data: images.stored_size(data, 'x')):
      with pytest.raises(UserError, match=r'has more than \d+ million pixels'):
        read(data)
