"""Files as batches: which ones, in what order, what becomes of those that cannot be read."""

import hashlib
import logging
import threading
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.data import arrays, file_search, image_stream, images
from patch_svdd_jax.system.digest_cache import digest_files


def settings():
  config = default.get_config().data
  config.update({'image_size': (6, 8), 'light': 'standardised'})
  return config


def save(path, seed=0, size=(6, 8)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


def test_batches_keep_the_order_and_report_what_is_damaged(tmp_path):
  paths = [save(tmp_path / f'{i}.png', i) for i in range(7)]
  paths[2].write_bytes(paths[2].read_bytes()[:-60])
  found = list(image_stream.batches(file_search.find([tmp_path]).sources, 3, settings()))
  assert [batch.split.names for batch in found] == [
    ('0.png', '1.png'),
    ('3.png', '4.png', '5.png'),
    ('6.png',),
  ]
  ((source, why),) = found[0].failures
  assert source.name == '2.png'
  assert 'damaged or cut short' in why
  one = image_stream.read(file_search.Source('4.png', paths[4]), settings())
  np.testing.assert_array_equal(found[1].split.images[1], one.images[0])
  expected = hashlib.blake2b(paths[4].read_bytes()).hexdigest()[:32]
  assert one.digests == found[1].split.digests[1:2] == (expected,)
  assert digest_files(paths[4:5]) == [expected]
  plain = arrays.resized([np.asarray(Image.open(paths[4]))], settings(), ['4.png'])
  np.testing.assert_array_equal(found[1].split.appearance[1], plain.appearance[0])
  assert abs(one.images.mean() - 128) < 1  # lit


def test_the_seconds_are_of_work_and_not_of_waiting(tmp_path, monkeypatch):
  for i in range(3):
    save(tmp_path / f'{i}.png', i)
  real = image_stream.read

  def slow(*arguments):
    time.sleep(0.1)
    start = time.thread_time()
    while time.thread_time() < start + 0.02:
      pass
    return real(*arguments)

  monkeypatch.setattr(image_stream, 'read', slow)
  (batch,) = image_stream.batches(file_search.find([tmp_path]).sources, 3, settings())
  assert 3 * 0.02 <= batch.seconds < 3 * 0.1


def test_a_batch_of_nothing_but_damage(tmp_path):
  for i in range(2):
    (tmp_path / f'{i}.png').write_bytes(b'no image')
  (batch,) = image_stream.batches(file_search.find([tmp_path]).sources, 4, settings())
  assert batch.split is None
  assert len(batch.failures) == 2


def test_files_are_read_ahead_and_no_further(tmp_path, monkeypatch):
  for i in range(40):
    save(tmp_path / f'{i}.png', i)
  read, lock, real = [], threading.Lock(), image_stream.read

  def note(source, *others):
    with lock:
      read.append(source.name)
    return real(source, *others)

  monkeypatch.setattr(image_stream, 'read', note)
  stream = image_stream.batches(file_search.find([tmp_path]).sources, 4, settings())
  next(stream)
  deadline = time.monotonic() + 10
  while len(read) < 16 and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.05)
  assert len(read) == 16  # the batch that was taken, the one that refilled, and two ahead
  stream.close()


@pytest.mark.parametrize(
  'error',
  [MemoryError(), RecursionError('too deep'), ZeroDivisionError('of a header'), KeyError(3)],
)
def test_what_a_decoder_raises_ends_with_its_file(tmp_path, monkeypatch, caplog, error):
  for i in range(6):
    save(tmp_path / f'{i}.png', i)
  real = images.decode_image

  def decode(content, name, within):
    if name.endswith('2.png'):
      raise error
    return real(content, name, within)

  monkeypatch.setattr(images, 'decode_image', decode)
  with caplog.at_level(logging.DEBUG, 'patch_svdd_jax.data.image_stream'):
    found = list(image_stream.batches(file_search.find([tmp_path]).sources, 3, settings()))
  assert [batch.split.names for batch in found] == [('0.png', '1.png'), ('3.png', '4.png', '5.png')]
  [(source, why)] = found[0].failures
  assert source.name == '2.png'
  assert f'2.png: cannot be decoded ({type(error).__name__}: ' in why
  [record] = caplog.records  # with its traceback, for those who look for a bug
  assert record.exc_info[1] is error


def test_no_more_pixels_are_decoded_at_a_time_than_there_is_room_for(tmp_path, monkeypatch):
  """Whatever the number of threads: small files together, one that is larger than all alone."""
  small, large = 6 * 8, 30 * 40
  for i in range(24):
    save(tmp_path / f'{i}.png', i, (30, 40) if i % 8 == 3 else (6, 8))
  monkeypatch.setattr(image_stream, 'PIXELS', 5 * small)
  lock, now, met, real = threading.Lock(), [], [], images.decode_image
  together = threading.Barrier(2)  # two small ones at least are decoded at once

  def decode(content, name, within):
    width, height = images.stored_size(content, name)
    with lock:
      now.append(width * height)
      met.append(tuple(now))
    try:
      if not together.broken and width * height == small:
        together.wait(10)
        together.abort()
    except threading.BrokenBarrierError:
      pass
    time.sleep(0.002)
    with lock:
      now.remove(width * height)
    return real(content, name, within)

  monkeypatch.setattr(images, 'decode_image', decode)
  found = list(image_stream.batches(file_search.find([tmp_path]).sources, 24, settings()))
  assert sum(len(batch.split) for batch in found) == len(met) == 24
  assert (large,) in met
  assert all(len(each) == 1 or (large not in each and len(each) <= 5) for each in met)
  assert any(len(each) > 1 for each in met)


def test_no_more_bytes_are_read_at_a_time_than_there_is_room_for(tmp_path, monkeypatch):
  paths = [save(tmp_path / f'{i}.png', i) for i in range(12)]
  size = max(path.stat().st_size for path in paths)
  monkeypatch.setattr(image_stream, 'BYTES', 2 * size)
  lock, held, most, real = threading.Lock(), [0], [0], images.stored_size

  def note(content, name):
    with lock:
      held[0] += 1
      most[0] = max(most[0], held[0])
    time.sleep(0.005)
    with lock:
      held[0] -= 1
    return real(content, name)

  monkeypatch.setattr(images, 'stored_size', note)
  list(image_stream.batches(file_search.find([tmp_path]).sources, 12, settings()))
  assert most[0] <= 2
