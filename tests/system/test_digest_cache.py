"""Digests of files' contents: right whatever was remembered, and quick where nothing changed."""

import hashlib
import mmap
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digest_cache, digests, files
from patch_svdd_jax.system.digest_cache import digest_files

CONTENT = bytes(range(256)) * 40
NOBODY = 65534
REAL_YOUNG = digest_cache.YOUNG


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The folder of the cache, which remembers files however young they are."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  monkeypatch.setattr(digest_cache, 'YOUNG', -(10**9))
  return files.cache_folder()


@pytest.fixture
def hashed(monkeypatch):
  """Lists the files that are hashed."""
  found = []
  real = digests.digest_file

  def note(file):
    found.append(pathlib.Path(file.name).name)
    return real(file)

  monkeypatch.setattr(digests, 'digest_file', note)
  return found


def write(folder, count=5):
  folder.mkdir(exist_ok=True)
  paths = [folder / f'{index}.bmp' for index in range(count)]
  for index, path in enumerate(paths):
    path.write_bytes(CONTENT + index.to_bytes(2))
  return paths


def expected(paths):
  return [hashlib.blake2b(path.read_bytes()).hexdigest()[:32] for path in paths]


def test_digests_are_of_the_content_and_files_are_hashed_once(tmp_path, cache, hashed):
  paths = write(tmp_path / 'images')
  assert digest_files(paths) == expected(paths)
  assert sorted(hashed) == [path.name for path in paths]
  assert digest_files(paths[::-1]) == expected(paths[::-1])
  assert digest_files([*paths, *paths]) == expected([*paths, *paths])
  assert len(hashed) == len(paths)
  assert digest_files([]) == []
  assert [path.name for path in cache.iterdir()] == [digest_cache.FILE]


def replace(path):
  path.write_bytes(path.read_bytes()[::-1])


def copy_over(path):
  other = path.with_name('other')
  other.write_bytes(path.read_bytes()[::-1])
  shutil.copystat(path, other)
  subprocess.run(['cp', '-p', other, path], check=True)


def rename_over(path):
  other = path.with_name('other')
  other.write_bytes(path.read_bytes()[::-1])
  shutil.copystat(path, other)
  other.rename(path)


def map_memory(path):
  with path.open('r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[:] = mapped[::-1]


def write_in_place(path):
  with path.open('r+b') as file:
    file.write(b'x')


def swap_link(path):
  other = path.with_name('other')
  other.write_bytes(path.read_bytes()[::-1])
  shutil.copystat(path, other)
  path.unlink()
  path.symlink_to(other)


def swap_folders(path):
  here, there = path.parent, path.parent.with_name('elsewhere')
  shutil.copytree(here, there)
  content = path.read_bytes()
  (there / path.name).write_bytes(content[::-1])
  shutil.copystat(path, there / path.name)
  here.rename(here.with_name('before'))
  there.rename(here)


def swap_names(path):
  other = path.with_name('4.bmp')
  between = path.with_name('between')
  path.rename(between)
  other.rename(path)
  between.rename(other)


CHANGES = [
  replace,
  copy_over,
  rename_over,
  map_memory,
  write_in_place,
  swap_link,
  swap_folders,
  swap_names,
]


@pytest.mark.parametrize('change', CHANGES)
def test_a_file_that_changed_is_hashed_though_its_size_and_time_are_equal(tmp_path, cache, change):
  paths = write(tmp_path / 'images')
  for path in paths:
    os.utime(path, ns=(10**18, 10**18))
  before = digest_files(paths)
  size = paths[0].stat().st_size
  change(paths[0])
  os.utime(paths[0], ns=(10**18, 10**18))
  assert (paths[0].stat().st_size, paths[0].stat().st_mtime_ns) == (size, 10**18)
  assert digest_files(paths) == expected(paths)
  assert digest_files(paths)[0] != before[0]


def test_a_file_that_was_just_changed_is_not_remembered(tmp_path, cache, hashed, monkeypatch):
  monkeypatch.setattr(digest_cache, 'YOUNG', REAL_YOUNG)
  paths = write(tmp_path / 'images')
  for _ in range(2):
    assert digest_files(paths) == expected(paths)
  assert len(hashed) == 2 * len(paths)
  # An hour later they are not young any more.
  later = time.time_ns() + 3600 * 10**9
  monkeypatch.setattr(time, 'time_ns', lambda: later)
  for _ in range(2):
    assert digest_files(paths) == expected(paths)
  assert len(hashed) == 3 * len(paths)


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path, cache, monkeypatch):
  paths = write(tmp_path / 'images')
  real = digests.digest_file

  def hash_and_change(file):
    found = real(file)
    replace(pathlib.Path(file.name))
    return found

  monkeypatch.setattr(digests, 'digest_file', hash_and_change)
  digest_files(paths)
  monkeypatch.setattr(digests, 'digest_file', real)
  assert digest_files(paths) == expected(paths)


@pytest.mark.parametrize('kinds', ['vfat', 'fuse.sshfs', 'tmpfs', 'squashfs', '9p', None])
def test_file_systems_that_keep_no_change_times_are_hashed(
  tmp_path, cache, hashed, monkeypatch, kinds
):
  paths = write(tmp_path / 'images')
  found = {'/': 'ext4', str(tmp_path): kinds} if kinds else {}
  monkeypatch.setattr(digest_cache, 'mounts', lambda: found)
  for _ in range(2):
    assert digest_files(paths) == expected(paths)
  assert len(hashed) == 2 * len(paths)


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path, monkeypatch):
  table = tmp_path / 'mountinfo'
  table.write_text(
    '22 1 8:1 / / rw,relatime shared:1 master:2 - vfat /dev/sda1 rw\n'
    f'23 22 8:2 / {tmp_path}/a\\040b rw - ext4 /dev/sda2 rw\n'
    'garbled\n'
  )
  monkeypatch.setattr(digest_cache, 'MOUNTS', table)
  inside = tmp_path / 'a b' / 'c'
  inside.mkdir(parents=True)
  assert digest_cache.Trusted()(1, inside / 'x')
  assert not digest_cache.Trusted()(2, tmp_path / 'x')


def damage_bytes(path):
  content = bytearray(path.read_bytes())
  chosen = random.Random(0)
  for _ in range(20):
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
  path.write_bytes(content)


def other_table(path):
  path.unlink()
  with sqlite3.connect(path) as connection:
    connection.execute('CREATE TABLE digests (name TEXT)')
  connection.close()


DAMAGE = {
  'cut': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  'emptied': lambda path: path.write_bytes(b''),
  'text': lambda path: path.write_text('no database at all, but long enough to look like one' * 20),
  'bytes': damage_bytes,
  'other table': other_table,
  'gone': lambda path: path.unlink(),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_memory_is_made_anew(tmp_path, cache, hashed, damage):
  paths = write(tmp_path / 'images', 50)
  digest_files(paths)
  DAMAGE[damage](cache / digest_cache.FILE)
  for _ in range(3):
    assert digest_files(paths) == expected(paths)
  assert len(hashed) <= 3 * len(paths)
  hashed.clear()
  assert digest_files(paths) == expected(paths)
  assert not hashed


def test_no_bit_of_the_memory_that_changes_gives_a_wrong_digest(tmp_path, cache):
  paths = write(tmp_path / 'images')
  right = digest_files(paths)
  place = cache / digest_cache.FILE
  whole = place.read_bytes()
  # The header, the table's description, the pages' headers, and all rows.
  used = [index for index, byte in enumerate(whole) if byte]
  chosen = random.Random(0)
  for index in chosen.sample(used, min(300, len(used))):
    content = bytearray(whole)
    content[index] ^= 1 << chosen.randrange(8)
    place.write_bytes(content)
    assert digest_files(paths) == right, index


def test_a_locked_memory_is_done_without(tmp_path, cache, hashed, monkeypatch):
  monkeypatch.setattr(digest_cache, 'SECONDS', 0.05)
  paths = write(tmp_path / 'images')
  digest_files(paths[:2])
  other = sqlite3.connect(cache / digest_cache.FILE)
  for kind in ('IMMEDIATE', 'EXCLUSIVE'):
    other.execute(f'BEGIN {kind}')
    assert digest_files(paths) == expected(paths)
    other.rollback()
  other.close()
  hashed.clear()
  assert digest_files(paths[:2]) == expected(paths[:2])
  assert not hashed, 'a memory that was locked is as it was'


def in_the_way(folder):
  folder.parent.mkdir()
  folder.write_text('')


def file_is_a_folder(folder):
  (folder / digest_cache.FILE).mkdir(parents=True)


def full(folder):
  folder.parent.mkdir()
  folder.symlink_to('/dev/full')


@pytest.mark.parametrize('fault', [in_the_way, file_is_a_folder, full])
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, cache, fault):
  paths = write(tmp_path / 'images')
  fault(cache)
  assert digest_files(paths) == expected(paths)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be another user')
def test_a_cache_of_another_user_is_read_or_done_without(tmp_path, cache):
  paths = write(tmp_path / 'images')
  digest_files(paths)
  code = f"""
import concurrent.futures.thread, os, pathlib
from patch_svdd_jax.system import digest_cache
os.setuid({NOBODY})
print(digest_cache.digest_files([pathlib.Path(path) for path in {[*map(str, paths)]!r}]))
"""
  for folder in (tmp_path, *tmp_path.parents[:-2]):
    folder.chmod(0o755)
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert run.stdout == f'{expected(paths)}\n', run.stderr


def test_the_oldest_of_too_many_are_forgotten(tmp_path, cache, hashed, monkeypatch):
  monkeypatch.setattr(digest_cache, 'LARGEST', 3)
  monkeypatch.setattr(digest_cache, 'BATCH', 2)
  paths = write(tmp_path / 'images')
  assert digest_files(paths) == expected(paths)
  hashed.clear()
  assert digest_files(paths) == expected(paths)
  assert sorted(hashed) == ['0.bmp', '1.bmp']


def test_processes_share_a_memory(tmp_path, cache):
  paths = write(tmp_path / 'images', 300)
  code = f"""
import pathlib
from patch_svdd_jax.system import digest_cache
digest_cache.YOUNG, digest_cache.BATCH = -10**9, 7
paths = sorted(pathlib.Path({str(tmp_path / 'images')!r}).iterdir())
print(digest_cache.digest_files(paths))
"""
  processes = [
    subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    for _ in range(3)
  ]
  for process in processes:
    assert process.communicate(timeout=60)[0] == f'{expected(sorted(paths))}\n'


@pytest.mark.parametrize('missing', ['gone', 'folder', 'link'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, cache, missing):
  paths = write(tmp_path / 'images')
  paths[3].unlink()
  if missing == 'folder':
    paths[3].mkdir()
  if missing == 'link':
    paths[3].symlink_to(paths[3])
  with pytest.raises(UserError, match=rf'{paths[3]}: cannot be read \(.+\); check the file'):
    digest_files(paths)


@pytest.mark.parametrize(
  ('variables', 'place'),
  [
    ({'XDG_CACHE_HOME': '/else/where', 'HOME': '/home/me'}, '/else/where'),
    ({'XDG_CACHE_HOME': 'relative', 'HOME': '/home/me'}, '/home/me/.cache'),
    ({'XDG_CACHE_HOME': '', 'HOME': '/home/me'}, '/home/me/.cache'),
    ({'HOME': '/home/me'}, '/home/me/.cache'),
    ({'HOME': 'relative'}, None),
  ],
)
def test_the_cache_folder(monkeypatch, variables, place):
  for name in ('XDG_CACHE_HOME', 'HOME'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  if place:
    assert files.cache_folder() == pathlib.Path(place, 'patch_svdd_jax')
  else:
    with pytest.raises(UserError, match=r'no home folder .* set config\.data\.prepared'):
      files.cache_folder()


def test_without_a_home_nothing_is_remembered(tmp_path, monkeypatch):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', lambda number: {}[number])
  with pytest.raises(UserError, match='HOME'):
    files.cache_folder()
  paths = write(tmp_path / 'images')
  assert digest_files(paths) == expected(paths)
