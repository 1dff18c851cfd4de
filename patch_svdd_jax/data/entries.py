"""The folder of prepared data: an entry for each content, locked while it is used, within a bound.

An entry is a folder `<data set>-<category>-<digest>`; the digest is of the content that it was
prepared from, wherever that lay. Its lock file is held by whoever prepares or reads it, and was
last changed when that was last begun. Earlier versions named entries by paths, and did not lock
them to read: they are listed, and removed on request only.
"""

import contextlib
import datetime
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Collection
from typing import IO, Any, NamedTuple

from patch_svdd_jax.system import files, locks

# TFDS's names of the files that describe a copy, and of the folder of one that is not finished.
INFO, METADATA, INCOMPLETE = 'dataset_info.json', 'metadata.json', 'incomplete.'
_PACKAGE = __name__.partition('.')[0]
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_REMOVED = '.removed_by_patch_svdd_jax_'
_DIGITS = 16
_ENDING = re.compile(rf'-[0-9a-f]{{{_DIGITS}}}$')


class Entry(NamedTuple):
  """A prepared data set of one content.

  Attributes:
    name: its path in the folder of prepared data.
    place: its folder.
    source: what it was prepared from; empty where it was not finished.
    images: how many it has.
    size: bytes of its files.
    used: when it was last begun to be read.
    evictable: whether it may be removed to make room.
  """

  name: str
  place: pathlib.Path
  source: str
  images: int
  size: int
  used: datetime.datetime
  evictable: bool

  @property
  def finished(self) -> bool:
    """Whether all of it was written."""
    return bool(self.source)


def name(qualified_name: str, fingerprint: str) -> str:
  """Returns the name of the entry of a data set and category, and of a content."""
  return f'{_start(qualified_name)}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:_DIGITS]}'


def newest(folder: pathlib.Path, qualified_name: str) -> list[pathlib.Path]:
  """Returns the finished entries of a data set and category, that which was used last first."""
  places = (place for place in _folders(folder) if is_of(place.name, qualified_name))
  return sorted(filter(_info, places), key=_used, reverse=True)


def is_of(name: str, qualified_name: str) -> bool:
  """Returns whether an entry of this name is one of a data set and category."""
  return bool(_ENDING.search(name)) and name[:-_DIGITS] == f'{_start(qualified_name)}-'


def _start(qualified_name: str) -> str:
  return qualified_name.replace('/', '-')


def shared(place: pathlib.Path) -> IO[str]:
  """Keeps an entry from being removed or prepared, while the file that is returned is open.

  Waits while another process prepares it.

  Raises:
    OSError: it cannot be made, or read.
  """
  return _locked(place, shared=True)


def alone(place: pathlib.Path) -> IO[str]:
  """Keeps all others from an entry, for which it waits, while the file that is returned is open.

  Raises:
    OSError: it cannot be written.
  """
  return _locked(place, shared=False)


def _locked(place: pathlib.Path, shared: bool) -> IO[str]:
  while True:
    place.mkdir(parents=True, exist_ok=True)
    # Another process may remove the folder in between.
    with contextlib.suppress(FileNotFoundError):
      try:
        return locks.lock(place / files.LOCK, shared=shared, waits=True)
      except OSError as error:
        if error.errno not in _READ_ONLY:
          raise
        return _locked_read_only(place, shared, error)


def _locked_read_only(place: pathlib.Path, shared: bool, reason: OSError) -> IO[str]:
  try:
    return locks.lock(place / files.LOCK, shared=shared, waits=True, mode='r')
  except FileNotFoundError:
    # Nobody prepares it here, or removes it: it can be read as it is.
    if _info(place):
      return pathlib.Path(os.devnull).open(encoding='utf-8')
    raise reason from None


def touch(place: pathlib.Path) -> None:
  """Notes that an entry is used now, where it can be written."""
  with contextlib.suppress(OSError):
    os.utime(place / files.LOCK)


def list_all(folder: pathlib.Path) -> list[Entry]:
  """Returns all entries of a folder of prepared data, that which was used last first."""
  ours = {place for place in _folders(folder) if _is_named(place)}
  earlier = {lock.parent for lock in folder.glob(f'*/*/{files.LOCK}')}
  earlier |= {info.parents[1] for info in folder.glob(f'*/*/*/{INFO}')}
  places = ours | {place for place in earlier if not _is_within(place.parent, ours)}
  found = [_read(folder, place) for place in places if _is_ours(place)]
  return sorted(found, key=lambda entry: (entry.used, entry.name), reverse=True)


def evict(folder: pathlib.Path, bound: float) -> list[Entry]:
  """Removes those entries that were not used for longest, until the others have `bound` bytes.

  What was never finished goes first. Entries in use stay, and whatever else lies in the folder.

  Returns:
    The removed ones.
  """
  _sweep(folder)
  found = [entry for entry in list_all(folder) if entry.evictable]
  total = sum(entry.size for entry in found)
  removed = []
  for entry in sorted(found, key=lambda entry: (entry.finished, entry.used)):
    if entry.finished and total <= bound:
      break
    if remove(entry.place):
      removed.append(entry)
      total -= entry.size
  return removed


def in_use(place: pathlib.Path) -> bool:
  """Returns whether a process prepares or reads an entry."""
  try:
    locks.lock(place / files.LOCK, mode='r').close()
  except BlockingIOError:
    return True
  except OSError:  # it has no lock file, or one that cannot be opened
    return False
  return False


def remove(place: pathlib.Path) -> bool:
  """Removes an entry unless it is in use or cannot be removed; returns whether it did."""
  try:
    with locks.lock(place / files.LOCK, needed=True) as lock:
      locks.let_go_to_remove(lock)
      discard(place)
  except OSError:
    return False
  # The data set's folder, where earlier versions had a category's in it.
  with contextlib.suppress(OSError):
    if not _is_named(place):
      place.parent.rmdir()
  return True


def discard(place: pathlib.Path) -> None:
  """Removes a folder, which first loses its name: no half of it is ever found under that.

  Raises:
    OSError: it cannot be renamed.
  """
  unnamed = tempfile.mkdtemp(prefix=_REMOVED, dir=place.parent)
  place.rename(pathlib.Path(unnamed, place.name))
  shutil.rmtree(unnamed, ignore_errors=True)


def empty(place: pathlib.Path) -> None:
  """Removes all that is prepared in an entry that is locked.

  Raises:
    OSError: it cannot be renamed.
  """
  for each in place.iterdir():
    if each.is_dir():
      discard(each)


def _sweep(folder: pathlib.Path) -> None:
  """Removes what a process left that was killed while it removed an entry."""
  for place in folder.glob(f'{_REMOVED}*'):
    shutil.rmtree(place, ignore_errors=True)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return [place for place in folder.iterdir() if place.is_dir() and not place.is_symlink()]
  except OSError:  # it is not there, or cannot be read
    return []


def _is_within(place: pathlib.Path, ours: Collection[pathlib.Path]) -> bool:
  return place in ours or place.name.startswith(_REMOVED)


def _is_named(place: pathlib.Path) -> bool:
  return bool(_ENDING.search(place.name))


def _info(place: pathlib.Path) -> pathlib.Path | None:
  """Returns the file by which TFDS describes an entry; None where it is not finished."""
  depths = ('*/*', '*/*/*') if _is_named(place) else ('*',)
  found = (info for depth in depths for info in place.glob(f'{depth}/{INFO}'))
  finished = (info for info in found if not info.parent.name.startswith(INCOMPLETE))
  return next(finished, None)


def _is_ours(place: pathlib.Path) -> bool:
  """Returns whether a folder is an entry, by its description or else by all that it holds."""
  info = _info(place)
  if info and str(_json(info).get('moduleName', '')).startswith(f'{_PACKAGE}.'):
    return True
  try:
    inside = {each.name for each in place.iterdir()}
  except OSError:
    return False
  begun = {name for name in inside - {files.LOCK} if not name.startswith(_REMOVED)}
  if files.LOCK not in inside:
    return False
  if _is_named(place):
    return all(place.name.startswith(f'{name}-') for name in begun)
  return all(name.startswith(INCOMPLETE) for name in begun)


def _json(path: pathlib.Path) -> dict[str, Any]:
  with contextlib.suppress(OSError, ValueError):
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}
  return {}


def of_mirror(place: pathlib.Path, url: str) -> Entry:
  """Returns what `list_all` would say of a folder with the images of a URL."""
  images = sum(not each.startswith('.') for _, _, names in os.walk(place) for each in names)
  used = datetime.datetime.fromtimestamp(_used(place)).astimezone()
  name = f'{place.parent.name}/{place.name}'
  return Entry(name, place, url, images, _size(place), used, evictable=False)


def _used(place: pathlib.Path) -> float:
  for each in (place / files.LOCK, place):
    with contextlib.suppress(OSError):
      return each.stat().st_mtime
  return 0.0


def _read(folder: pathlib.Path, place: pathlib.Path) -> Entry:
  info = _info(place)
  described = _json(info) if info else {}
  metadata = _json(info.with_name(METADATA)) if info else {}
  images = 0
  with contextlib.suppress(KeyError, TypeError, ValueError):
    images = sum(int(n) for split in described['splits'] for n in split['shardLengths'])
  return Entry(
    name=place.relative_to(folder).as_posix(),
    place=place,
    source=str(metadata.get('source') or described.get('description') or info or ''),
    images=images,
    size=_size(place),
    used=datetime.datetime.fromtimestamp(_used(place)).astimezone(),
    evictable=_is_named(place),
  )


def _size(place: pathlib.Path) -> int:
  total = 0
  for folder, _, names in os.walk(place):
    for each in names:
      with contextlib.suppress(OSError):
        total += pathlib.Path(folder, each).lstat().st_size
  return total
