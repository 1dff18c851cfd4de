"""The folder of prepared data: named by content, within a bound, never emptied under a reader."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.data import builder, entries, folder, prepared
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files
from tests.faults import programs

NONE, PLENTY = 0.0, 2.0**40

HOLD = """
import pathlib, sys, time
from patch_svdd_jax.data import folder, prepared, builder
root, place, pause = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
real = builder.file_example
def slow(item, within, **options):
  print(item.name, flush=True)
  time.sleep(pause)
  return real(item, within, **options)
builder.file_example = slow
def make(entry):
  return folder.Folder(folder=root, data_dir=entry)
with prepared.prepare(make, place, 2.0**40):
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def place(tmp_path):
  return tmp_path / 'prepared'


@pytest.fixture
def count(monkeypatch):
  """Counts the images that are prepared."""
  found = []
  real = builder.file_example
  monkeypatch.setattr(
    builder,
    'file_example',
    lambda *args, **options: (found.append(args[0]), real(*args, **options))[1],
  )
  return found


def open_folder(root, place, bound=PLENTY):
  return prepared.prepare(lambda at: folder.Folder(folder=root, data_dir=at), place, bound)


def prepare(root, place, bound=PLENTY):
  """Prepares a folder and returns its entry's name."""
  with open_folder(root, place, bound) as made:
    return pathlib.Path(made.data_dir).relative_to(place).parts[0]


def names(place):
  return {entry.name for entry in entries.list_all(place)}


@contextlib.contextmanager
def holder(root, place, pause=0.0):
  """Another process that prepares and reads a folder, and its first line."""
  arguments = [root, place, str(pause)]
  with programs.start(HOLD, arguments, programs.variables({})) as process:
    yield process
    process.kill()


def test_a_folder_that_moves_is_prepared_once(tmp_path, place, make_category, settings, count):
  root = make_category(tmp_path / 'nuts')
  first = data.load(settings(root=str(root)))
  assert len(count) == 8
  (tmp_path / 'link').symlink_to(tmp_path)
  moves = (
    lambda: tmp_path / 'link' / 'nuts',
    lambda: shutil.copytree(root, tmp_path / 'copy'),
    lambda: root.rename(tmp_path / 'other name'),
  )
  for move in (each() for each in moves):
    os.utime(move / 'train/good/000.png', ns=(1, 1))
    again = data.load(settings(root=str(move)))
    np.testing.assert_array_equal(again.train.images, first.train.images)
  assert len(count) == 8
  [entry] = entries.list_all(place)
  assert (entry.source, entry.images, entry.finished) == (str(tmp_path / 'nuts'), 8, True)
  assert entry.size == sum(path.stat().st_size for path in place.rglob('*') if path.is_file())


def write_over(path, content):
  path.write_bytes(content)


def copy_over(path, content):
  other = path.with_name('other')
  other.write_bytes(content)
  shutil.copystat(path, other)
  subprocess.run(['cp', '-p', other, path], check=True)
  other.unlink()


def rename_over(path, content):
  other = path.with_name('other')
  other.write_bytes(content)
  other.rename(path)


def link_elsewhere(path, content):
  other = path.parents[3] / 'elsewhere.bmp'
  other.write_bytes(content)
  path.unlink()
  path.symlink_to(other)


def swap_folder(path, content):
  new = path.parent.with_name('new')
  shutil.copytree(path.parent, new)
  (new / path.name).write_bytes(content)
  for each in path.parent.iterdir():
    os.utime(new / each.name, ns=(10**18, 10**18))
  path.parent.rename(path.parents[3] / 'old')
  new.rename(path.parent)


WAYS = [write_over, copy_over, rename_over, link_elsewhere, swap_folder]


@pytest.mark.parametrize('name', ['train/good/001.bmp', 'ground_truth/scratch/000_mask.bmp'])
@pytest.mark.parametrize('way', WAYS)
def test_a_file_that_is_replaced_by_one_of_its_size_and_times_is_prepared(
  tmp_path, make_category, settings, count, way, name
):
  root = make_category(tmp_path / 'nuts')
  for path in list(root.rglob('*.png')):
    with Image.open(path) as image:
      image.save(path.with_suffix('.bmp'))
    path.unlink()
    os.utime(path.with_suffix('.bmp'), ns=(10**18, 10**18))
  config = settings(root=str(root))
  before = data.load(config)
  victim = root / name
  content = bytearray(victim.read_bytes())
  content[-1], content[-41] = content[-1] ^ 255, content[-41] ^ 255
  content[-12:-4] = bytes(255 - byte for byte in content[-12:-4])
  size = victim.stat().st_size
  way(victim, bytes(content))
  os.utime(victim, ns=(10**18, 10**18))
  assert (victim.stat().st_size, victim.stat().st_mtime_ns) == (size, 10**18)
  after = data.load(config)
  assert len(count) == 16
  changed = (before.train.images != after.train.images).any()
  assert changed == name.startswith('train')
  assert (before.test.masks != after.test.masks).any() != changed


def pack(root, path):
  with tarfile.open(path, 'w') as tar:
    tar.add(root, 'all')


def test_an_archive_that_is_replaced_by_one_of_its_size_and_time_is_prepared(
  tmp_path, make_category, settings
):
  archive = tmp_path / 'all.tar'
  found = []
  for seed in range(2):
    pack(make_category(tmp_path / 'all/screw', seed=seed).parent, archive)
    with archive.open('r+b') as file:
      file.truncate(2**20)
    os.utime(archive, ns=(10**18, 10**18))
    config = settings(name='mvtec', category='screw', root=str(archive))
    found.append(data.load(config).train.images)
  assert (found[0] != found[1]).any()
  archive.rename(tmp_path / 'other.tar')
  config.root = str(tmp_path / 'other.tar')
  np.testing.assert_array_equal(data.load(config).train.images, found[1])


def test_data_that_come_back_are_still_prepared(tmp_path, place, make_category, count):
  root = make_category(tmp_path / 'nuts')
  first = prepare(root, place)
  away = (root / 'train/good/000.png').rename(tmp_path / 'away.png')
  second = prepare(root, place)
  assert names(place) == {first, second}
  away.rename(root / 'train/good/000.png')
  assert prepare(root, place) == first
  assert len(count) == 8 + 7


def test_a_source_that_changes_while_it_is_read_is_refused(
  tmp_path, place, make_category, monkeypatch
):
  root = make_category(tmp_path / 'nuts')
  real = builder.file_example

  def change(item, within, **options):
    found = real(item, within, **options)
    if item.name == 'test/good/000.png':
      shutil.copy(root / 'train/good/001.png', root / 'train/good/000.png')
    return found

  monkeypatch.setattr(builder, 'file_example', change)
  with pytest.raises(UserError, match='nuts: has changed while it was read; run the same'):
    prepare(root, place)
  assert list(place.iterdir()) == []
  prepare(root, place)


# Eviction.


def several(tmp_path, place, make_category, count=4):
  """Names of entries, that which was used last first."""
  made = []
  for index in range(count):
    made.append(prepare(make_category(tmp_path / f'{index}', seed=index), place))
    used = time.time() - 1000 + index
    os.utime(place / made[-1] / files.LOCK, (used, used))
  return made[::-1]


def test_what_was_not_used_for_longest_goes(tmp_path, place, make_category, caplog):
  made = several(tmp_path, place, make_category)
  sizes = [entry.size for entry in entries.list_all(place)]
  assert [entry.name for entry in entries.list_all(place)] == made
  prepare(tmp_path / '0', place)  # which is read again, and is the last to go
  latest = prepare(make_category(tmp_path / 'new', seed=9), place, bound=3.5 * max(sizes))
  assert names(place) == {latest, made[3], made[0]}
  [line] = caplog.messages
  assert line.startswith('removed what was prepared of ')
  assert all(str(tmp_path / name) in line for name in '12')
  assert line.endswith(' to stay within config.data.cache_gib=%g' % (3.5 * max(sizes) / 2**30))
  prepare(tmp_path / '0', place, bound=NONE)
  assert names(place) == {latest, made[3], made[0]}, 'what is prepared already removes nothing'


def test_without_a_bound_to_speak_of_the_latest_stays(tmp_path, place, make_category, settings):
  several(tmp_path, place, make_category)
  config = settings(root=str(make_category(tmp_path / 'new', seed=9)), cache_gib=0.0)
  assert len(data.load(config).test) == 5
  [entry] = entries.list_all(place)
  assert entry.source == str(tmp_path / 'new')


def test_all_categories_of_one_model_stay(tmp_path, place, make_category, settings):
  several(tmp_path / 'parts', place, make_category)
  config = settings(root=str(tmp_path / 'parts'), category='multiclass', cache_gib=0.0)
  shutil.rmtree(place)
  assert len(data.load(config).test) == 20
  assert len(entries.list_all(place)) == 4


def test_what_another_process_reads_stays(tmp_path, place, make_category):
  root = make_category(tmp_path / 'nuts')
  with holder(root, place) as process:
    assert 'held\n' in iter(process.stdout.readline, '')
    [held] = entries.list_all(place)
    assert entries.in_use(held.place)
    latest = prepare(make_category(tmp_path / 'new', seed=9), place, bound=NONE)
    assert names(place) == {held.name, latest}
    assert not entries.remove(held.place)
    assert prepare(root, place) == held.name, 'two may read the same'
  prepare(make_category(tmp_path / 'newer', seed=10), place, bound=NONE)
  assert held.name not in names(place), 'a dead process holds nothing'


@pytest.mark.slow
def test_what_another_process_prepares_stays(tmp_path, place, make_category):
  root = make_category(tmp_path / 'nuts')
  with holder(root, place, pause=0.5) as process:
    assert process.stdout.readline() == 'train/good/000.png\n'
    [held] = entries.list_all(place)
    assert not held.finished
    latest = prepare(make_category(tmp_path / 'new', seed=9), place, bound=NONE)
    assert names(place) == {held.name, latest}
    assert 'held\n' in iter(process.stdout.readline, '')
  assert {entry.images for entry in entries.list_all(place)} == {8}


@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_process_left_goes_with_the_next(tmp_path, place, make_category, sent):
  with holder(make_category(tmp_path / 'nuts'), place, pause=60) as process:
    process.stdout.readline()
    process.send_signal(sent)
    process.wait()
  assert len(names(place)) == (sent == signal.SIGKILL)
  latest = prepare(make_category(tmp_path / 'new', seed=9), place)
  assert [path.name for path in place.iterdir()] == [latest]


def test_what_is_not_ours_stays(tmp_path, place, make_category):
  made = several(tmp_path, place, make_category, 2)
  theirs = [
    place / 'notes.txt',
    place / 'photos-0123456789abcdef' / 'me.png',
    place / 'photos-0123456789abcdef' / 'folder' / '1.0.0' / 'me.png',
    place / 'folder-0123456789abcdef' / 'me.png',
    place / 'locked-0123456789abcdef' / files.LOCK,
    place / 'locked-0123456789abcdef' / 'me.png',
    place / 'mnist' / '3.0.1' / entries.INFO,
    place / 'cifar' / 'plain' / '3.0.1' / entries.INFO,
    place / 'some' / 'run' / files.LOCK,
    place / 'some' / 'run' / 'config.json',
  ]
  for path in theirs:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"moduleName": "tensorflow_datasets.mnist"}')
  (place / 'link-0123456789abcdef').symlink_to(place / made[0])
  latest = prepare(make_category(tmp_path / 'new', seed=9), place, bound=NONE)
  assert names(place) == {latest}
  assert all(path.exists() for path in theirs)
  for entry in entries.list_all(place):
    entries.remove(entry.place)
  assert all(path.exists() for path in theirs)


def earlier(place, make_category, tmp_path):
  """What the version before this one left: an entry by the folder's path, and one only begun."""
  root = make_category(tmp_path / 'old', seed=7)
  old = place / 'folder_old_0123abcd'
  builder_of_old = folder.Folder(folder=root, data_dir=old)
  builder_of_old.write(builder_of_old.fingerprint())
  (old / 'folder' / files.LOCK).touch()
  begun = place / 'folder_begun_0123abcd' / 'folder'
  (begun / 'incomplete.XY_1.0.0').mkdir(parents=True)
  (begun / files.LOCK).touch()
  return {'folder_old_0123abcd/folder', 'folder_begun_0123abcd/folder'}


def test_entries_of_earlier_versions_are_listed_and_removed_on_request(
  tmp_path, place, make_category
):
  old = earlier(place, make_category, tmp_path)
  latest = prepare(make_category(tmp_path / 'new', seed=9), place, bound=NONE)
  assert names(place) == old | {latest}
  for name in old:
    assert entries.remove(place / name)
  assert [path.name for path in place.iterdir()] == [latest]


def test_a_removal_that_was_killed_is_ended_by_the_next(
  tmp_path, place, make_category, monkeypatch
):
  [entry] = several(tmp_path, place, make_category, 1)
  monkeypatch.setattr(shutil, 'rmtree', lambda *given, **options: None)
  assert entries.remove(place / entry)
  monkeypatch.undo()
  assert names(place) == set()
  latest = prepare(tmp_path / '0', place)
  assert [path.name for path in place.iterdir()] == [latest]


@pytest.mark.slow
def test_an_entry_that_goes_while_another_waits_for_it_is_made_anew(tmp_path, place, make_category):
  root = make_category(tmp_path / 'nuts')
  entry = place / prepare(root, place)
  lock = entries.alone(entry)
  with holder(root, place) as process:
    time.sleep(5)  # until it waits
    entries.discard(entry)
    lock.close()
    assert 'held\n' in iter(process.stdout.readline, '')
    assert [each.images for each in entries.list_all(place)] == [8]


# Without a source.


def mvtec(root, make_category, seed=0):
  make_category(root / 'screw', seed=seed)
  return str(root)


def test_without_a_root_the_copy_that_was_used_last_is_read(
  tmp_path, make_category, settings, caplog
):
  roots = [mvtec(tmp_path / f'{index}', make_category, index) for index in range(2)]

  def load(root):
    return data.load(settings(name='mvtec', category='screw', root=root)).train.images

  with pytest.raises(UserError, match='not prepared yet'):
    load('')
  found = [load(root) for root in roots]
  for index in (1, 0):
    load(roots[index])
    caplog.clear()
    np.testing.assert_array_equal(load(''), found[index])
    assert '2 copies of mvtec/screw are prepared: the one that was used last' in caplog.text
  shutil.rmtree(tmp_path / '0')
  np.testing.assert_array_equal(load(''), found[0])


def test_a_copy_that_lost_a_file_is_of_no_use_without_a_source(
  tmp_path, place, make_category, settings
):
  config = settings(name='mvtec', category='screw', root=mvtec(tmp_path / 'all', make_category))
  data.load(config)
  next(place.rglob('*train.array_record*')).unlink()
  config.root = ''
  with pytest.raises(UserError, match='not prepared yet'):
    data.load(config)
  assert list(place.rglob('*test.array_record*'))
