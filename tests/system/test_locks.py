"""Locks on files and folders, as each system has them; Windows is imitated by what Linux has."""

import contextlib
import ctypes
import fcntl
import sys
import threading
import types

import pytest

from patch_svdd_jax.system import files, locks, numbered


def imitate_windows(monkeypatch):
  """Gives the process the calls of Windows that locks are made of, by `flock`, which it lacks then.

  LOCKFILE_EXCLUSIVE_LOCK is 2, LOCKFILE_FAIL_IMMEDIATELY 1; ERROR_LOCK_VIOLATION is 33.
  """

  def lock_file_ex(handle, flags, reserved, low, high, overlapped):
    assert (reserved, low, high) == (0, 1, 0)
    assert overlapped.contents.offset == 2**62
    kind = fcntl.LOCK_EX if flags & 2 else fcntl.LOCK_SH
    try:
      fcntl.flock(handle.value, kind | (fcntl.LOCK_NB if flags & 1 else 0))
    except BlockingIOError:
      return 0
    return 1

  library = types.SimpleNamespace(LockFileEx=lock_file_ex)
  console = types.SimpleNamespace(get_osfhandle=lambda number: number)
  monkeypatch.setattr(locks, 'fcntl', None)
  monkeypatch.setitem(sys.modules, 'msvcrt', console)
  monkeypatch.setattr(ctypes, 'WinDLL', lambda *_, **__: library, raising=False)
  monkeypatch.setattr(ctypes, 'get_last_error', lambda: 33, raising=False)


@pytest.fixture(params=['as it is', 'Windows'])
def system(request, monkeypatch):
  if request.param == 'Windows':
    imitate_windows(monkeypatch)
  return request.param


@pytest.mark.parametrize(
  ('first', 'second', 'fits'),
  [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_only_those_that_share_have_a_lock_together(system, tmp_path, first, second, fits):
  path = tmp_path / files.LOCK
  refused = contextlib.nullcontext() if fits else pytest.raises(BlockingIOError)
  with locks.lock(path, shared=first), refused:
    locks.lock(path, shared=second).close()
  locks.lock(path, mode='r').close()


def test_one_waits_for_the_other(system, tmp_path):
  path, order = tmp_path / files.LOCK, []

  def wait():
    with locks.lock(path, waits=True):
      order.append('second')

  with locks.lock(path):
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.2)
    order.append('first')
  thread.join(10)
  assert order == ['first', 'second']


def test_a_folder_is_locked_and_nothing_is_left_beside_it(system, tmp_path):
  place = tmp_path / '7'
  place.mkdir()
  with locks.of_folder(place, shared=True) as read, locks.of_folder(place, shared=True) as too:
    assert read
    assert too
    with locks.of_folder(place, shared=False) as alone:
      assert not alone
  with locks.of_folder(place, shared=False) as alone:
    assert alone
  assert list(tmp_path.iterdir()) == [place]


def test_what_is_read_is_not_removed(system, tmp_path):
  for number in (1, 2, 3):
    (tmp_path / str(number)).mkdir()
  with locks.of_folder(tmp_path / '1', shared=True):
    numbered.remove_older(tmp_path)
  assert {place.name for place in tmp_path.glob('[!.]*')} == {'1', '3'}
  numbered.remove_older(tmp_path)
  assert [place.name for place in tmp_path.iterdir()] == ['3']


def test_a_folder_that_cannot_be_written_or_is_gone_is_free(system, tmp_path):
  with locks.of_folder(tmp_path / 'gone' / '1', shared=True) as free:
    assert free


def test_a_file_is_closed_before_it_is_removed_on_windows_alone(system, tmp_path):
  file = locks.lock(tmp_path / files.LOCK)
  locks.let_go_to_remove(file)
  assert file.closed == (system == 'Windows')
  file.close()
