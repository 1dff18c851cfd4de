"""EXIF orientation: what turns with what, in every format that says so."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import builder, image_stream, images, layout
from patch_svdd_jax.errors import UserError
from tests.data.image_files import chunk, encoded, exif, png, tiff

HIGH = (0.0, 65535.0)
# From stored to upright, as the EXIF specification has it.
TURNS = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
  8: lambda a: np.rot90(a),
}
SIZES = [(6, 9), (7, 7)]


def picture(size, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def with_exif(orientation):
  found = Image.Exif()
  found[0x0112] = orientation
  return found


WRITERS = {
  'png': lambda a, o: png(a, metadata=chunk(b'eXIf', exif(o))),
  'png by Pillow': lambda a, o: encoded(a, 'PNG', exif=with_exif(o)),
  'png, 16 bits': lambda a, o: png(a.astype(np.uint16) * 257, metadata=chunk(b'eXIf', exif(o))),
  'png, profile': lambda a, o: png(a, metadata=chunk(b'tEXt', profile(o))),
  'tiff': lambda a, o: tiff(a, extratags=[(274, 3, 1, o, True)]),
  'tiff by Pillow': lambda a, o: encoded(a, 'TIFF', tiffinfo={274: o}),
  'tiff, 16 bits': lambda a, o: tiff(a.astype(np.uint16) * 257, extratags=[(274, 3, 1, o, True)]),
  'tiff, planes': lambda a, o: tiff(a, planar=True, extratags=[(274, 3, 1, o, True)]),
  'webp': lambda a, o: encoded(a, 'WEBP', lossless=True, exif=with_exif(o)),
}


def profile(orientation):
  content = b'Exif\0\0' + exif(orientation)
  return b'Raw profile type exif\0\nexif\n%8d\n%s\n' % (len(content), content.hex().encode())


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('kind', WRITERS)
def test_images_are_turned_upright(kind, orientation, size):
  stored = picture(size)
  data = WRITERS[kind](stored, orientation)
  expected = TURNS[orientation](stored)
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH), expected)
  assert images.stored_size(data, 'x') == (size[1], size[0])
  content, upright_size, frame = images.normalise(data, 'x', HIGH)
  assert (upright_size, frame) == (expected.shape[:2], (size, orientation))
  np.testing.assert_array_equal(images.decode_normalised(content), expected)


@pytest.mark.parametrize('orientation', TURNS)
def test_jpeg_is_turned_as_viewers_do(orientation):
  data = encoded(picture((8, 16)), 'JPEG', exif=with_exif(orientation))
  expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH), expected)


@pytest.mark.parametrize('orientation', [0, 9, 255, 65535])
@pytest.mark.parametrize('kind', ['png', 'tiff', 'webp'])
def test_an_orientation_that_does_not_exist_turns_nothing(kind, orientation):
  data = WRITERS[kind](picture((6, 9)), orientation)
  np.testing.assert_array_equal(images.decode_image(data, 'x', HIGH), picture((6, 9)))


def truth(size):
  mask = np.zeros(size, bool)
  mask[1:3, 2:6] = True
  mask[5, 1] = True
  return mask


def item(tmp_path, image, mask):
  for name, content in (('image.png', image), ('mask.png', mask)):
    (tmp_path / name).write_bytes(content)
  return layout.Item('x', 'scratch', tmp_path / 'image.png', (tmp_path / 'mask.png',))


def example_mask(tmp_path, image, mask):
  """The mask that is prepared of an image and its mask, u8 and bool."""
  found, _ = builder.file_example(item(tmp_path, image, mask), HIGH)
  return (
    images.decode_normalised(found['image']),
    images.decode_normalised(found['mask']) > 0,
  )


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('orientation', TURNS)
@pytest.mark.parametrize('kind', ['png', 'png, 16 bits', 'tiff', 'webp'])
def test_a_mask_of_the_stored_pixels_turns_along(tmp_path, kind, orientation, size):
  stored, turn = picture(size), TURNS[orientation]
  data = WRITERS[kind](stored, orientation)
  image, mask = example_mask(tmp_path, data, png(truth(size) * np.uint8(255)))
  np.testing.assert_array_equal(image, turn(stored))
  np.testing.assert_array_equal(mask, turn(truth(size)))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('orientation', TURNS)
def test_a_mask_with_an_orientation_of_its_own_is_turned_by_it(tmp_path, orientation, size):
  data = WRITERS['png'](picture(size), orientation)
  same = png(truth(size) * np.uint8(255), metadata=chunk(b'eXIf', exif(orientation)))
  _, mask = example_mask(tmp_path, data, same)
  np.testing.assert_array_equal(mask, TURNS[orientation](truth(size)))
  # One that says it is upright is, even of a square image.
  upright = TURNS[orientation](truth(size))
  said = png(upright * np.uint8(255), metadata=chunk(b'eXIf', exif(1)))
  _, mask = example_mask(tmp_path, data, said)
  np.testing.assert_array_equal(mask, upright)


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_a_mask_that_fits_the_upright_image_alone_is_upright(tmp_path, orientation):
  upright = TURNS[orientation](truth((6, 9)))
  data = WRITERS['png'](picture((6, 9)), orientation)
  _, mask = example_mask(tmp_path, data, png(upright * np.uint8(255)))
  np.testing.assert_array_equal(mask, upright)


def test_a_mask_that_fits_neither_is_named(tmp_path):
  data = WRITERS['png'](picture((6, 9)), 6)
  with pytest.raises(UserError, match=r'mask\.png: is 8 x 6 pixels but its image .* is 6 x 9'):
    example_mask(tmp_path, data, png(np.zeros((6, 8), np.uint8)))


@pytest.mark.parametrize('orientation', TURNS)
def test_sizes_that_boxes_are_given_in_are_upright(tmp_path, orientation):
  config = default.get_config().data
  config.image_size = (4, 4)
  (tmp_path / 'a.png').write_bytes(WRITERS['png'](picture((6, 9)), orientation))
  split = image_stream.read(image_stream.Source('a.png', tmp_path / 'a.png'), config)
  assert tuple(split.sizes[0]) == TURNS[orientation](picture((6, 9))).shape[:2]
