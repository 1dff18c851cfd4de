import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from patch_svdd_jax import data
from patch_svdd_jax.data import builder, folder, prepared

# Loads a folder, slowly: every example announces itself and then takes its time.
SLOW = """
import sys, time, ml_collections
from patch_svdd_jax import data
from patch_svdd_jax.data import builder
real = builder.file_example
def slow(item, within, **options):
  print(item.name, flush=True)
  time.sleep({pause})
  return real(item, within, **options)
builder.file_example = slow
config = ml_collections.ConfigDict(dict(name='folder', category='', root={root!r},
  prepared={prepared!r}, image_size=(12, 10), resize='bicubic', light='kept',
  value_range=(), region='', region_share=0.5,
  cache_gib=1.0, normal_images=0, held_out=0.0, contamination=0.0, contamination_overlap=False))
print(len(data.load(config).test), flush=True)
"""


def start(root, place, pause):
  code = SLOW.format(root=str(root), prepared=str(place), pause=pause)
  return subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  )


def opened(root, place, bound=2**30):
  """Prepares a folder, and holds what is prepared of it."""

  def make(entry):
    return folder.Folder(folder=root, data_dir=entry)

  return prepared.prepare(make, place, bound)


@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGINT])
def test_a_killed_preparation_leaves_nothing_that_is_read(tmp_path, make_category, settings, sent):
  root = make_category(tmp_path / 'nuts')
  place = tmp_path / 'prepared'
  with start(root, place, pause=60) as process:
    assert process.stdout.readline() == 'train/good/000.png\n'
    process.send_signal(sent)
  assert not list(place.rglob('[0-9].*'))
  assert bool(list(place.rglob('incomplete.*'))) == (sent == signal.SIGKILL)
  assert len(data.load(settings(root=str(root))).test) == 5
  assert not list(place.rglob('incomplete.*'))


def test_a_preparation_killed_over_a_stale_copy(tmp_path, make_category, settings):
  root = make_category(tmp_path / 'nuts')
  config = settings(root=str(root))
  data.load(config)
  (root / 'train/good/000.png').unlink()
  with start(root, tmp_path / 'prepared', pause=60) as process:
    process.stdout.readline()
    process.kill()
  assert data.load(config).train.names == ('train/good/001.png', 'train/good/002.png')


def test_two_processes_prepare_once(tmp_path, make_category):
  root = make_category(tmp_path / 'nuts')
  processes = [start(root, tmp_path / 'prepared', pause=0.2) for _ in range(2)]
  outputs = sorted((p.communicate(timeout=60)[0].splitlines() for p in processes), key=len)
  assert all(process.returncode == 0 for process in processes)
  assert outputs[0] == ['5']
  assert len(outputs[1]) == 8 + 1


def test_a_missing_file_is_prepared_again(tmp_path, make_category, settings):
  config = settings(root=str(make_category(tmp_path / 'nuts')))
  first = data.load(config)
  next((tmp_path / 'prepared').rglob('*test.array_record*')).unlink()
  np.testing.assert_array_equal(data.load(config).test.images, first.test.images)


def test_prepared_files_are_read_without_being_written(tmp_path, make_category, settings):
  config = settings(root=str(make_category(tmp_path / 'nuts')))
  data.load(config)

  def times():
    found = {path: path.stat().st_mtime_ns for path in (tmp_path / 'prepared').rglob('*')}
    return {path: time for path, time in found.items() if path.name != '.lock'}

  before = times()
  time.sleep(0.01)
  data.load(config)
  assert times() == before


def test_tfds_reads_what_was_prepared(tmp_path, make_category):
  """The prepared files are ordinary TFDS data, without any help of this package."""
  root = make_category(tmp_path / 'nuts')
  with opened(root, tmp_path / 'prepared') as made:
    place = made.data_dir
  info = tfds.builder_from_directory(place).info
  assert {name: split.num_examples for name, split in info.splits.items()} == {
    'train': 3,
    'test': 5,
  }
  source = tfds.builder_from_directory(place).as_data_source('test')
  example = source[4]
  assert example['image'].shape == (12, 10, 3)
  assert example['mask'].shape == (12, 10, 1)
  assert (example['name'], example['label']) == (b'test/scratch/001.png', 1)


def test_examples_are_written_as_they_come(tmp_path, make_category, monkeypatch):
  """While example i is made, all but the last few before it are already gone from memory."""
  root = make_category(tmp_path / 'nuts')
  alive = 0
  most = 0

  class Counted(bytes):
    def __del__(self):
      nonlocal alive
      alive -= 1

  real = builder.file_example

  def counting(item, within, **options):
    nonlocal alive, most
    alive += 1
    most = max(most, alive)
    example, examined = real(item, within, **options)
    return {**example, 'image': Counted(example['image'])}, examined

  monkeypatch.setattr(builder, 'file_example', counting)
  with opened(root, tmp_path / 'prepared'):
    assert most <= 2


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_read_only_copy_can_be_read(tmp_path, make_category, settings):
  config = settings(root=str(make_category(tmp_path / 'nuts')))
  data.load(config)
  for path in (tmp_path / 'prepared').rglob('*'):
    path.chmod(path.stat().st_mode & ~0o222)
  assert len(data.load(config).test) == 5
