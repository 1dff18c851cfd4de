"""Locks on files and folders that end with their process, on every system: Linux, macOS, Windows.

POSIX systems have `flock`, Windows has `LockFileEx`. What is not there is imported nowhere else.
Windows neither opens a folder, nor removes or renames what is open, or has it in it: there a lock
on a folder is one on a file beside it, and `let_go_to_remove` closes first. Nothing is lost by
that, for whoever opens the file in between keeps it, and its folder, where it is.
"""

import contextlib
import ctypes
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any

fcntl: Any
try:
  import fcntl
except ImportError:
  fcntl = None

# What a network file system may say that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# Flags of LockFileEx, and what it says where another process holds the lock.
_AT_ONCE, _ALONE, _HELD = 1, 2, (33, 997)
# The byte of a file that is locked, beyond all that is read or written: Windows would refuse that.
_BYTE = 2**62


def lock(
  path: pathlib.Path,
  *,
  shared: bool = False,
  waits: bool = False,
  mode: str = 'a+',
  needed: bool = False,
) -> IO[str]:
  """Opens a file in a folder that is there, with a lock that lasts until the file is closed.

  Args:
    path: of the file.
    shared: whether others may have it too that share it.
    waits: for others to let go of it.
    mode: 'a+', which makes it where it is missing, or 'r'.
    needed: whether to refuse a file system that has no locks.

  Raises:
    BlockingIOError: another holds it.
    OSError: it cannot be opened or locked.
  """
  while True:
    file: IO[str] = path.open(mode, encoding='utf-8')
    try:
      _lock(file.fileno(), shared, waits)
      # One that let go of it in between may have removed the file, which Windows refuses.
      with contextlib.suppress(FileNotFoundError):
        if fcntl is None or os.path.samestat(os.fstat(file.fileno()), path.stat()):
          return file
    except OSError as error:
      if error.errno in NO_LOCKS and not needed:
        return file
      file.close()
      raise
    file.close()


def let_go_to_remove(file: IO[str]) -> None:
  """Closes, on Windows, a file that is removed next, or whose folder is removed or renamed."""
  if fcntl is None:
    file.close()


@contextlib.contextmanager
def of_folder(place: pathlib.Path, *, shared: bool) -> Iterator[bool]:
  """Yields whether no one else has a lock on a folder that this one excludes.

  It has none either where the folder is gone or its file system has no locks.
  """
  if fcntl is None:
    with _beside(place, shared) as free:
      yield free
    return
  try:
    number = os.open(place, os.O_RDONLY)
  except OSError:
    yield True
    return
  try:
    yield _is_free(number, shared)
  finally:
    os.close(number)


@contextlib.contextmanager
def _beside(place: pathlib.Path, shared: bool) -> Iterator[bool]:
  beside = place.with_name(f'.{place.name}.lock')
  try:
    file = beside.open('a+', encoding='utf-8')
  except OSError:
    yield True
    return
  try:
    with file:
      yield _is_free(file.fileno(), shared)
  finally:
    with contextlib.suppress(OSError):
      beside.unlink()


def _is_free(number: int, shared: bool) -> bool:
  try:
    _lock(number, shared, waits=False)
  except BlockingIOError:
    return False
  except OSError:
    return True
  return True


def _lock(number: int, shared: bool, waits: bool) -> None:
  """Locks the file of a number, which the system lets go of when it is closed.

  Raises:
    BlockingIOError: another holds it.
    OSError: it cannot be locked.
  """
  if fcntl is not None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(number, kind if waits else kind | fcntl.LOCK_NB)
    return
  import msvcrt

  windows: Any = ctypes
  runtime: Any = msvcrt
  flags = (0 if shared else _ALONE) | (0 if waits else _AT_ONCE)
  handle = ctypes.c_void_p(runtime.get_osfhandle(number))
  at = ctypes.pointer(_Overlapped(offset=_BYTE))
  system = windows.WinDLL('kernel32', use_last_error=True)
  if not system.LockFileEx(handle, flags, 0, 1, 0, at):
    code = windows.get_last_error()
    if code in _HELD:
      raise BlockingIOError(errno.EAGAIN, 'another process holds the lock')
    raise OSError(errno.ENOLCK, f'no lock: error {code} of Windows')


class _Overlapped(ctypes.Structure):
  """OVERLAPPED of Windows: says where in a file."""

  _fields_ = (
    ('internal', ctypes.c_void_p),
    ('internal_high', ctypes.c_void_p),
    ('offset', ctypes.c_uint64),
    ('event', ctypes.c_void_p),
  )
