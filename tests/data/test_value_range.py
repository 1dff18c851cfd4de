"""What black and white mean in files of more than 8 bits: by rule, and through a data set."""

import json
import logging
import re

import numpy as np
import pytest

from patch_svdd_jax import configuration, data
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import file_search, image_stream, images, value_range
from patch_svdd_jax.data.value_range import Extent
from patch_svdd_jax.errors import UserError
from tests.data import image_files
from tests.data.image_files import png, tiff

GREY = np.random.default_rng(0).integers(0, 256, (8, 9), dtype=np.uint8)
GREY[0, :2] = 0, 255


def scaled(bits, array=GREY):
  """Values of so many bits whose highest 8 are the grey levels, at random below."""
  noise = np.random.default_rng(1).integers(0, 2 ** (bits - 8), array.shape)
  return (array.astype(np.int64) << (bits - 8)) + noise


@pytest.mark.parametrize(
  ('extents', 'expected'),
  [
    ([], (0, 255)),
    ([Extent(True, 0, 0)], (0, 255)),
    ([Extent(True, 3, 255)], (0, 255)),
    ([Extent(True, 0, 256)], (0, 1023)),
    ([Extent(True, 0, 900), Extent(True, 0, 1024)], (0, 4095)),
    ([Extent(True, 0, 4095)], (0, 4095)),
    ([Extent(True, 0, 4096)], (0, 16383)),
    ([Extent(True, 0, 16384)], (0, 65535)),
    ([Extent(True, 0, 65536)], (0, 2**18 - 1)),
    ([Extent(True, 0, 2**23)], (0, 2**24 - 1)),
    ([Extent(True, 0, 2**31)], (0, 2**32 - 1)),
    ([Extent(False, 0, 0.4)], (0, 1)),
    ([Extent(False, 0.2, 1)], (0, 1)),
    ([Extent(False, 0, 0)], (0, 1)),
    ([Extent(False, 0, 0.05)], (0, 0.05)),
    ([Extent(False, -0.1, 0.5)], (-0.1, 0.5)),
    ([Extent(False, 3, 9), Extent(False, -2, 4)], (-2, 9)),
    ([Extent(False, 7, 7)], (7, 8)),
  ],
)
def test_training_images_decide(extents, expected):
  assert value_range.resolve((), extents) == expected
  assert value_range.resolve((3, 9), extents) == (3, 9)


def test_whole_numbers_and_floats_do_not_mix():
  with pytest.raises(UserError, match='whole numbers of more than 8 bits and others floats'):
    value_range.resolve((), [Extent(True, 0, 900), Extent(False, 0, 1)])


@pytest.mark.parametrize('given', [(1,), (5.0, 5.0), (9.0, 1.0), (0.0, np.nan), (0.0, np.inf)])
def test_what_is_no_range_is_refused(given):
  with pytest.raises(UserError, match=r'config\.data\.value_range=.* must be \(black, white\)'):
    value_range.check(given)


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16, 24, 32])
@pytest.mark.parametrize('kind', ['uint', 'int', 'float'])
def test_the_highest_8_bits_are_the_grey_level(bits, kind):
  dtype = {'uint': np.uint16 if bits <= 16 else np.uint32, 'int': np.int64, 'float': np.float64}
  values = scaled(bits).astype(dtype[kind])
  decoded = images.decode_image(tiff(values), 'x', (0.0, 2.0**bits - 1))
  np.testing.assert_array_equal(decoded, np.stack([GREY] * 3, -1))


@pytest.mark.parametrize('factor', [256, 257])
@pytest.mark.parametrize('write', [png, tiff])
def test_8_bit_values_in_16_bits_come_back(factor, write):
  values = GREY.astype(np.uint16) * factor
  within = value_range.resolve((), [Extent(True, 0, float(values.max()))])
  np.testing.assert_array_equal(images.decode_image(write(values), 'x', within)[..., 0], GREY)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1(dtype):
  values = (GREY / 255).astype(dtype)
  decoded = images.decode_image(tiff(values), 'x', (0.0, 1.0))
  np.testing.assert_array_equal(decoded[..., 2], GREY)


def test_floats_of_another_range_and_what_is_cut_off():
  values = np.array([[-50.0, 10.0], [100.0, 250.0]], np.float32)
  within = (-40.0, 240.0)
  expected = np.clip(np.round((values.astype(float) + 40) * 255 / 280), 0, 255)
  np.testing.assert_array_equal(images.decode_image(tiff(values), 'x', within)[..., 0], expected)


@pytest.mark.parametrize(
  ('values', 'within', 'message'),
  [
    (scaled(16).astype(np.uint16), (0.0, 4095.0), 'holds values from .* range from 0 to 4095'),
    (scaled(16).astype(np.uint16), (0.0, 255.0), 'range from 0 to 255'),
    (np.array([[0, 4096]], np.uint16), (0.0, 4095.0), 'range from 0 to 4095'),
    (scaled(12).astype(np.uint16), (0.0, 65535.0), 'would be all but black'),
    (GREY.astype(np.uint16), (0.0, 65535.0), 'would be all but black'),
    (GREY.astype(np.uint16), (0.0, 4095.0), 'would be all but black'),
    ((GREY / 255).astype(np.float32), (0.0, 65535.0), 'would be all but black'),
    (GREY.astype(np.float32), (0.0, 1.0), 'range from 0 to 1'),
    (GREY.astype(np.int16) - 5, (0.0, 255.0), 'holds values from -5'),
    ((GREY >> 1).astype(np.int8) - 1, (0.0, 255.0), 'holds values from -1'),
    (np.array([[0.5, np.nan]], np.float32), (0.0, 1.0), 'no numbers'),
    (np.array([[0.5, -np.inf]], np.float64), (0.0, 1.0), 'no numbers'),
  ],
)
def test_what_does_not_fit_is_named(values, within, message):
  with pytest.raises(UserError, match=rf'^dir/7\.tif: .*{message}'):
    images.decode_image(tiff(values), 'dir/7.tif', within)


def test_black_is_black_in_every_range():
  for dtype in (np.uint16, np.uint32, np.float32):
    for within in ((0.0, 255.0), (0.0, 65535.0), (0.0, 1.0)):
      assert not images.decode_image(tiff(np.zeros((3, 4), dtype)), 'x', within).any()


def test_8_bits_mean_what_they_say_in_every_range():
  for within in ((0.0, 255.0), (0.0, 4095.0), (0.0, 1.0)):
    np.testing.assert_array_equal(images.decode_image(png(GREY), 'x', within)[..., 0], GREY)


# Through a data set.


def save(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def settings(tmp_path, root, category='', **changes):
  config = default.get_config().data
  config.update({'name': 'folder', 'root': str(root), 'category': category})
  config.update({'prepared': str(tmp_path / 'prepared'), 'image_size': (0, 0)} | changes)
  return config


def make(root, bits, write=png, dtype=np.uint16, count=2):
  for i in range(count):
    save(root / f'train/good/{i}.img.png', write(scaled(bits, np.roll(GREY, i)).astype(dtype)))
  save(root / 'test/good/0.png', write(scaled(bits).astype(dtype)))


@pytest.mark.parametrize('write', [png, tiff])
@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_a_data_set_is_read_by_the_range_of_its_training_images(tmp_path, bits, write):
  make(tmp_path / 'd', bits, write)
  found = data.load(settings(tmp_path, tmp_path / 'd'))
  assert found.value_range == (0, 2**bits - 1)
  for i in range(2):
    np.testing.assert_array_equal(found.train.images[i, ..., 0], np.roll(GREY, i))
  np.testing.assert_array_equal(found.test.images[0, ..., 1], GREY)
  config = default.get_config()
  assert data.resolved(config, found).data.value_range == (0, 2**bits - 1)


def test_a_test_image_of_another_range_is_one_line(tmp_path):
  make(tmp_path / 'd', 12)
  save(tmp_path / 'd/test/scratch/odd.png', png(scaled(14).astype(np.uint16)))
  [case] = data.load(settings(tmp_path, tmp_path / 'd')).report.cases('test_file_unusable')
  assert re.search(r'scratch/odd\.png: holds values .* 0 to 4095', str(case))
  given = data.load(settings(tmp_path, tmp_path / 'd', value_range=(0.0, 16383.0)))
  assert given.value_range == (0, 16383)


def test_deep_test_images_of_8_bit_training_images_are_one_line(tmp_path):
  make(tmp_path / 'd', 8, dtype=np.uint8)
  assert data.load(settings(tmp_path, tmp_path / 'd')).value_range == (0, 255)
  save(tmp_path / 'd/test/scratch/deep.tif', tiff(scaled(12).astype(np.uint16)))
  [case] = data.load(settings(tmp_path, tmp_path / 'd')).report.cases('test_file_unusable')
  assert re.search(r'scratch/deep\.tif: holds values .* 0 to 255', str(case))


def test_training_images_of_several_ranges_are_one_line(tmp_path):
  make(tmp_path / 'd', 16)
  save(tmp_path / 'd/train/good/odd.png', png(scaled(12).astype(np.uint16)))
  with pytest.raises(UserError, match=r'good/odd\.png: holds values .* all but black'):
    data.load(settings(tmp_path, tmp_path / 'd'))


def test_another_range_prepares_the_data_anew_and_the_same_does_not(tmp_path, monkeypatch):
  make(tmp_path / 'd', 12)
  prepared = tmp_path / 'prepared'

  def state():
    return {path: path.stat().st_mtime_ns for path in prepared.rglob('*array_record*')}

  first = data.load(settings(tmp_path, tmp_path / 'd'))
  before = state()
  again = data.load(settings(tmp_path, tmp_path / 'd', value_range=first.value_range))
  assert state() == before
  np.testing.assert_array_equal(again.train.images, first.train.images)
  wider = data.load(settings(tmp_path, tmp_path / 'd', value_range=(0.0, 8190.0)))
  assert wider.train.images.max() < 128
  back = data.load(settings(tmp_path, tmp_path / 'd'))
  np.testing.assert_array_equal(back.train.images, first.train.images)
  # Of 8 bits no range matters.
  make(tmp_path / 'e', 8, dtype=np.uint8)
  data.load(settings(tmp_path, tmp_path / 'e'))
  before = state()
  data.load(settings(tmp_path, tmp_path / 'e', value_range=(0.0, 65535.0)))
  assert state() == before


def test_changed_training_images_decide_anew(tmp_path):
  make(tmp_path / 'd', 10)
  assert data.load(settings(tmp_path, tmp_path / 'd')).value_range == (0, 1023)
  make(tmp_path / 'd', 12)
  save(tmp_path / 'd/train/good/9.png', png(scaled(12).astype(np.uint16)))
  assert data.load(settings(tmp_path, tmp_path / 'd')).value_range == (0, 4095)


def test_categories_as_one_share_a_range_and_one_by_one_do_not(tmp_path):
  make(tmp_path / 'all/a', 12)
  make(tmp_path / 'all/b', 14)
  make(tmp_path / 'all/c', 8, dtype=np.uint8)
  ranges = [data.load(settings(tmp_path, tmp_path / 'all', name)).value_range for name in 'abc']
  assert ranges == [(0, 4095), (0, 16383), (0, 255)]
  found = data.load(settings(tmp_path, tmp_path / 'all', 'multiclass'))
  assert found.value_range == (0, 16383)
  first = {name: i for i, name in reversed(list(enumerate(found.train.names)))}
  images_of = {c: found.train.images[first[f'{c}/train/good/0.img.png'], ..., 0] for c in 'abc'}
  np.testing.assert_array_equal(images_of['a'], GREY >> 2)
  np.testing.assert_array_equal(images_of['b'], GREY)
  np.testing.assert_array_equal(images_of['c'], GREY)


def test_files_to_predict_are_read_by_the_config(tmp_path):
  config = default.get_config().data
  config.update({'image_size': GREY.shape, 'value_range': (0.0, 4095.0)})
  save(tmp_path / 'a.png', png(scaled(12).astype(np.uint16)))
  save(tmp_path / 'b.png', png(scaled(16).astype(np.uint16)))
  save(tmp_path / 'c.png', png(GREY))
  (batch,) = image_stream.batches(file_search.find([tmp_path]).sources, 4, config)
  assert batch.split.names == ('a.png', 'c.png')
  for image in batch.split.images:
    np.testing.assert_array_equal(image[..., 0], GREY)
  ((source, why),) = batch.failures
  assert (source.name, 'holds values' in why) == ('b.png', True)


def test_what_was_saved_before_the_key_reads_the_high_byte(tmp_path):
  config = default.get_config()
  old = json.loads(configuration.to_json(config))
  del old['data']['value_range']
  (tmp_path / configuration.FILE).write_text(json.dumps(old))
  assert configuration.load(tmp_path).data.value_range == (0, 65535)
  assert configuration.from_json(json.dumps(old), 'record').data.value_range == ()
  values = np.random.default_rng(2).integers(0, 2**16, (7, 5, 3), dtype=np.uint16)
  for write in (png, tiff):
    np.testing.assert_array_equal(
      images.decode_image(write(values), 'x', (0.0, 65535.0)), (values >> 8).astype(np.uint8)
    )


def test_masks_of_deep_files_need_no_range(tmp_path):
  truth = GREY > 128
  for values in (truth.astype(np.uint16), truth * np.float32(0.5), truth.astype(np.int32)):
    np.testing.assert_array_equal(images.decode_mask(tiff(values), 'x'), truth)
  with pytest.raises(UserError, match='x: holds values that are no numbers'):
    images.decode_mask(tiff(np.full((3, 3), np.nan, np.float32)), 'x')


def test_nothing_is_logged_of_what_is_read(caplog):
  with caplog.at_level(logging.DEBUG):
    images.decode_image(image_files.tiff(GREY.astype(np.uint16)), 'x', (0.0, 255.0))
  assert not caplog.records
