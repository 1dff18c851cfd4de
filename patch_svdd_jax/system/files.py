"""Files that appear whole or not at all, and what a disk can do to their writer in one line."""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from typing import IO, Any

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import locks

# No space left, over the quota, over the largest size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes of a file's name on nearly all file systems.
LONGEST_NAME = 255
LOCK = '.lock'
# Characters of a path that Windows takes unless its setting LongPathsEnabled is on.
LONGEST_PATH = 259
# The end of a file's name as long as it is being written.
UNFINISHED = '.tmp'
# Seconds for which a save that has failed waits for each of its writers, which may wait for others.
LONGEST_WAIT = 10


@contextlib.contextmanager
def explained(place: pathlib.Path) -> Iterator[None]:
  """Turns what the disk of a file or folder refuses its writer into one line.

  Raises:
    UserError: the disk is full, or nothing can be written there.
  """
  try:
    yield
  except (OSError, ValueError) as error:
    number = error_number(error)
    if number is None:
      raise
    if number in FULL:
      raise UserError(no_space(place)) from error
    raise UserError(f'cannot write {place}: {_reason(number, place)}') from error


def _reason(number: int, place: pathlib.Path) -> str:
  if number in (errno.EEXIST, errno.ENOTDIR):
    return 'a file has the name of a folder'
  length = len(str(place.absolute()))
  if sys.platform == 'win32' and length > LONGEST_PATH:
    # All that Windows itself says is that there is no such file.
    return (
      f'its path has {length} characters, and Windows takes {LONGEST_PATH}: choose a shorter '
      'folder, or turn on LongPathsEnabled'
    )
  return os.strerror(number)


@contextlib.contextmanager
def orbax_writes(folder: pathlib.Path) -> Iterator[None]:
  """Explains as `explained` what a save raises, which orbax's threads log with tracebacks besides.

  Nothing that orbax logs meanwhile is shown: what matters, a save that is not asynchronous raises.
  It raises what the first of its writers says; the others end before the next save begins.
  """
  absl = logging.getLogger('absl')
  absl.addFilter(_not_of_orbax)
  try:
    with explained(folder):
      yield
  except Exception:
    _wait_for_writers_of_orbax()
    raise
  finally:
    absl.removeFilter(_not_of_orbax)


def _wait_for_writers_of_orbax() -> None:
  for thread in threading.enumerate():
    if 'orbax' in type(thread).__module__.split('.'):
      # Theirs raises what the writer did.
      threading.Thread.join(thread, LONGEST_WAIT)


def _not_of_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in pathlib.Path(record.pathname).parts


def no_space(place: pathlib.Path) -> str:
  """Returns the message for a full disk of a file or folder."""
  return (
    f'no space left on the disk of {place}: free some and run the same command again; what is '
    'already there is whole'
  )


def check_room(folder: pathlib.Path, size: int) -> None:
  """Refuses to begin what the disk of a folder, which is there, has no room for.

  Orbax reports a full disk from many threads, of which those that come late print tracebacks.

  Raises:
    UserError: there are fewer bytes than `size` and some for what describes them.
  """
  with explained(folder):
    if shutil.disk_usage(folder).free < 1.1 * size + 2**20:
      raise UserError(no_space(folder))


def error_number(error: Exception) -> int | None:
  """Returns the errno of an OSError, or of a ValueError by which tensorstore reports one."""
  quoted = re.search(r"os_error_code='(\d+)'", str(error))
  return int(quoted[1]) if quoted else getattr(error, 'errno', None)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the path to write a file under, which gets its name once all of it is there.

  Its folder is made where it is missing.

  Raises:
    UserError: it cannot be written; what was there before still is.
  """
  unfinished = path.with_name(fitting(path.name, UNFINISHED))
  with explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      yield unfinished
      unfinished.replace(path)
    finally:
      # Where it could not be made it cannot be removed either.
      with contextlib.suppress(OSError):
        unfinished.unlink()


def place(path: str | os.PathLike[str], key: str = '') -> pathlib.Path:
  """Returns the path of a file or folder as users give it, with `~` as their home.

  Args:
    path: what they gave.
    key: the setting that it is of, for errors.

  Raises:
    UserError: it can be none: it is empty, of a bucket, or of a user who has no home.
  """
  text = os.fspath(path) if isinstance(path, str | os.PathLike) else ''
  named = f'{key}={path!r}' if key else repr(path)
  if not isinstance(text, str) or not text.strip() or '\0' in text:
    raise UserError(f'{named} is no path: give that of a file or folder')
  if '://' in text:
    raise UserError(f'{named}: give a path of this machine here, not one in a bucket')
  try:
    return (path if isinstance(path, pathlib.Path) else pathlib.Path(text)).expanduser()
  except RuntimeError as error:
    raise UserError(f'{named}: there is no such home: give the whole path') from error


def check_text(folder: pathlib.Path) -> None:
  """Refuses a folder whose path is not UTF-8, which orbax and tensorstore cannot write to.

  Raises:
    UserError: names it.
  """
  try:
    str(folder).encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f'{folder}: its name is not UTF-8: rename it, or name another folder'
    ) from error


def cache_folder() -> pathlib.Path:
  """Returns the folder for what can be made anew, of this user.

  It is patch_svdd_jax in $XDG_CACHE_HOME, or in ~/.cache where that is not set.

  Raises:
    UserError: the user has no home.
  """
  base = pathlib.Path(os.environ.get('XDG_CACHE_HOME', ''))
  # The specification has a path that is relative passed over.
  if not base.is_absolute():
    with contextlib.suppress(RuntimeError):  # neither $HOME nor an entry in passwd
      base = pathlib.Path.home() / '.cache'
  if not base.is_absolute():
    raise UserError(
      'there is no home folder to keep prepared data in: set config.data.prepared to a folder, or '
      'the environment variable HOME'
    )
  return base / 'patch_svdd_jax'


def fitting(name: str, ending: str) -> str:
  """Returns a file's name with an ending; one that is too long is cut, with a digest."""
  encoded = os.fsencode(name)
  if len(encoded) + len(ending) <= LONGEST_NAME:
    return name + ending
  ending = f'~{hashlib.sha256(encoded).hexdigest()[:16]}{ending}'
  # Cut between characters, not within one.
  return encoded[: LONGEST_NAME - len(ending)].decode(errors='ignore') + ending


def ignoring_case(path: pathlib.PurePath) -> str:
  """Returns what a path has in common with those that are the same file where case is ignored."""
  return unicodedata.normalize('NFC', unicodedata.normalize('NFC', str(path)).casefold())


def write(path: pathlib.Path, contents: bytes) -> None:
  """Writes a file, as of `whole`."""
  with whole(path) as unfinished:
    unfinished.write_bytes(contents)


def write_json(path: pathlib.Path, contents: Any) -> None:
  """Writes a file of JSON, as of `whole`; see `to_json`."""
  write(path, (json.dumps(to_json(contents), indent=2) + '\n').encode())


def to_json(value: Any) -> Any:
  """Returns plain JSON values: a numpy scalar as a number, NaN and infinities as None (null)."""
  if hasattr(value, 'dtype'):  # numpy is not imported for this: all commands wait for this module
    value = value.item()
  if isinstance(value, Mapping):
    return {key: to_json(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps a folder, which is made where it is missing, from other processes that ask for it so.

  The system lets go of it when the process ends, however it does. Where a file system has no locks,
  nothing is kept.

  Raises:
    UserError: another process has it, or it cannot be written.
  """
  missing = [place for place in (folder, *folder.parents) if not place.exists()]
  with explained(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = _lock(folder)
  try:
    yield
  finally:
    locks.let_go_to_remove(file)
    with contextlib.suppress(OSError):
      (folder / LOCK).unlink()
    file.close()
    # Those in which nothing was written.
    with contextlib.suppress(OSError):
      for place in missing:
        place.rmdir()


def _lock(folder: pathlib.Path) -> IO[str]:
  try:
    return locks.lock(folder / LOCK)
  except BlockingIOError as error:
    raise UserError(
      f'{folder} is being written by another run: wait for its end, or name another folder'
    ) from error


def check_writable(path: pathlib.Path) -> None:
  """Refuses a file that cannot be written, and makes its folder.

  Raises:
    UserError: says why it cannot.
  """
  if path.is_dir():
    raise UserError(f'cannot write {path}: it is a folder')
  unfinished = path.with_name(fitting(path.name, UNFINISHED))
  with explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    unfinished.unlink()
