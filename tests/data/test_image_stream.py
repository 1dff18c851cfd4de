"""Files as batches: which ones, in what order, what becomes of those that cannot be read."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import arrays, image_stream
from patch_svdd_jax.errors import UserError


def settings():
  config = default.get_config().data
  config.update({'image_size': (6, 8), 'light': 'standardised'})
  return config


def save(path, seed=0, size=(6, 8)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


def names(sources):
  return [source.name for source in sources]


def test_folders_are_searched_to_any_depth_in_natural_order(tmp_path):
  for name in ('b/10.png', 'b/9.png', 'a/deep/er/x y.JPG', 'a/ü.tif', '.hidden/x.png', 'b/.x.png'):
    save(tmp_path / name)
  (tmp_path / 'b' / 'notes.txt').write_text('no image')
  (tmp_path / 'b' / 'loop').symlink_to(tmp_path)
  found = image_stream.find([tmp_path / 'b', tmp_path / 'a', tmp_path / 'b' / '9.png'])
  assert names(found) == ['a/deep/er/x y.JPG', 'a/ü.tif', 'b/9.png', 'b/10.png']
  assert names(image_stream.find([tmp_path / 'b' / '9.png'])) == ['9.png']
  # A file that is named is an image, whatever it is called.
  (tmp_path / 'b' / '9.png').rename(tmp_path / 'b' / 'nine')
  assert names(image_stream.find([tmp_path / 'b' / 'nine'])) == ['nine']


def test_places_without_images(tmp_path):
  with pytest.raises(UserError, match=r'nowhere: no such file or folder'):
    image_stream.find([tmp_path / 'nowhere'])
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'empty: no images there'):
    image_stream.find([tmp_path / 'empty'])


def test_batches_keep_the_order_and_report_what_is_damaged(tmp_path):
  paths = [save(tmp_path / f'{i}.png', i) for i in range(7)]
  paths[2].write_bytes(paths[2].read_bytes()[:-60])
  found = list(image_stream.batches(image_stream.find([tmp_path]), 3, settings()))
  assert [batch.split.names for batch in found] == [
    ('0.png', '1.png'),
    ('3.png', '4.png', '5.png'),
    ('6.png',),
  ]
  ((source, why),) = found[0].failures
  assert source.name == '2.png'
  assert 'damaged or cut short' in why
  one = image_stream.read(image_stream.Source('4.png', paths[4]), settings())
  np.testing.assert_array_equal(found[1].split.images[1], one.images[0])
  plain = arrays.resized([np.asarray(Image.open(paths[4]))], settings(), ['4.png'])
  np.testing.assert_array_equal(found[1].split.appearance[1], plain.appearance[0])
  assert abs(one.images.mean() - 128) < 1  # lit


def test_a_batch_of_nothing_but_damage(tmp_path):
  for i in range(2):
    (tmp_path / f'{i}.png').write_bytes(b'no image')
  (batch,) = image_stream.batches(image_stream.find([tmp_path]), 4, settings())
  assert batch.split is None
  assert len(batch.failures) == 2


def test_files_are_read_ahead_and_no_further(tmp_path, monkeypatch):
  for i in range(40):
    save(tmp_path / f'{i}.png', i)
  read, lock, real = [], threading.Lock(), image_stream.read

  def note(source, config):
    with lock:
      read.append(source.name)
    return real(source, config)

  monkeypatch.setattr(image_stream, 'read', note)
  stream = image_stream.batches(image_stream.find([tmp_path]), 4, settings())
  next(stream)
  deadline = time.monotonic() + 10
  while len(read) < 16 and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.05)
  assert len(read) == 16  # the batch that was taken, the one that refilled, and two ahead
  stream.close()
