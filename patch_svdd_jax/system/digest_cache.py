"""Digests of files' contents, remembered as long as the system says that a file is unchanged.

A file is known by its device, inode, size, and the nanoseconds of its last modification and change.
The last of these no program can set: a file that is replaced by one of the same size and the same
time of modification has another. Where that does not hold, files are hashed each time.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digests, files
from patch_svdd_jax.system.batching import Bar

FILE = 'digests.sqlite'
# Nanoseconds since its last change that a file must have stayed as it is, to be remembered: a
# change that falls into the same tick of the file system's clock as another shows in no time; one
# that is made through a memory map shows in none until the system has written the page before it,
# which takes it half a minute.
YOUNG = 60 * 10**9
# The file systems whose own clock says when a file was changed, and whose inodes keep their
# numbers. Others take these from a server, a program or an image, or keep no times of mapped pages.
TRUSTED = frozenset(
  ('ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'zfs', 'f2fs', 'bcachefs', 'overlay', 'nfs', 'nfs4')
)
LARGEST = 1_000_000  # files that are remembered, about 100 MB
BATCH = 1024  # files that are hashed between two writes
SECONDS = 1.0  # to wait for another process that writes
# What SQLite says where its file cannot be used now, but is not damaged.
_UNAVAILABLE = frozenset(
  (
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
  )
)
MOUNTS = pathlib.Path('/proc/self/mountinfo')
_CREATE = """
CREATE TABLE IF NOT EXISTS digests (
  number INTEGER PRIMARY KEY, device INTEGER, inode INTEGER, size INTEGER, modified INTEGER,
  changed INTEGER, sealed BLOB, UNIQUE (device, inode))
"""
_RECALL = """
SELECT sealed FROM digests
WHERE device = ? AND inode = ? AND size = ? AND modified = ? AND changed = ?
"""
_REMEMBER = """
INSERT OR REPLACE INTO digests (device, inode, size, modified, changed, sealed)
VALUES (?, ?, ?, ?, ?, ?)
"""
_FORGET = 'DELETE FROM digests WHERE number <= (SELECT max(number) FROM digests) - ?'

T = TypeVar('T')


class State(NamedTuple):
  """The system's facts about a file; times in nanoseconds."""

  device: int
  inode: int
  size: int
  modified: int
  changed: int


class Hashed(NamedTuple):
  """A file's state and digest, and whether any later change of its content shows in its state."""

  state: State
  digest: str
  lasting: bool


def digest_files(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns the digests of files' contents, 32 hexadecimal digits each, in the order of the paths.

  Files that are not known yet are hashed by several threads, under a progress bar where that takes
  long. What was found is remembered in `files.cache_folder`, if something can be written there.

  Raises:
    UserError: a file cannot be read; names it.
  """
  states = [_explained(path, _state_of) for path in paths]
  with _opened() as memory:
    found = memory.recall(states)
    unknown = [index for index, digest in enumerate(found) if digest is None]
    with _bar(sum(states[index].size for index in unknown)) as bar:
      for start in range(0, len(unknown), BATCH):
        batch = unknown[start : start + BATCH]
        hashed = _hash([paths[index] for index in batch], bar)
        for index, each in zip(batch, hashed, strict=True):
          found[index] = each.digest
        memory.remember({each.state: each.digest for each in hashed if each.lasting})
  return [digest for digest in found if digest is not None]


def forget() -> None:
  """Removes what is remembered, as far as it can be."""
  with contextlib.suppress(OSError, UserError):
    _remove(files.cache_folder() / FILE)


def _remove(path: pathlib.Path) -> None:
  for each in (path, path.with_name(f'{path.name}-journal')):
    each.unlink(missing_ok=True)


def _bar(size: int) -> Bar:
  return Bar(
    total=size,
    desc='Reading files',
    unit='B',
    unit_scale=True,
    mininterval=0.5,
    delay=1.0,
    leave=False,
  )


def _hash(paths: Sequence[pathlib.Path], bar: Bar) -> list[Hashed]:
  """Hashes files by several threads, and says which of them can be remembered."""
  found = []
  trusted = Trusted()
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    for path, each in zip(paths, pool.map(_hashed, paths), strict=True):
      lasting = each.lasting and trusted(each.state.device, path)
      found.append(each._replace(lasting=lasting))
      bar.update(each.state.size)
  return found


def _explained(path: pathlib.Path, read: Callable[[io.FileIO], T]) -> T:
  """Returns what `read` does with a file that it is given open, so that a server is asked anew."""
  try:
    with path.open('rb', buffering=0) as file:
      return read(file)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error


def _state_of(file: io.FileIO) -> State:
  stat = os.fstat(file.fileno())
  return State(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _hashed(path: pathlib.Path) -> Hashed:
  def read(file: io.FileIO) -> Hashed:
    now = time.time_ns()
    state = _state_of(file)
    digest = digests.digest_file(file)
    return Hashed(state, digest, state == _state_of(file) and state.changed + YOUNG < now)

  return _explained(path, read)


class Trusted:
  """Says whether a device's file system is one of those `TRUSTED`."""

  def __init__(self) -> None:
    self._mounts = mounts()
    self._by_device: dict[int, bool] = {}

  def __call__(self, device: int, path: pathlib.Path) -> bool:
    """Returns whether the device that a file lies on is trusted."""
    if device not in self._by_device:
      place = pathlib.Path(os.path.realpath(path))
      kinds = (self._mounts.get(os.fspath(folder)) for folder in place.parents)
      self._by_device[device] = next(filter(None, kinds), None) in TRUSTED
    return self._by_device[device]


def mounts() -> dict[str, str]:
  """Returns the kinds of the mounted file systems, by where they are; none where none is told."""
  try:
    lines = os.fsdecode(MOUNTS.read_bytes()).splitlines()
  except OSError:
    return {}
  fields = [(line.split(' '), line.partition(' - ')[2].split(' ')) for line in lines]
  return {_unescaped(place[4]): kind[0] for place, kind in fields if len(place) > 4}


def _unescaped(text: str) -> str:
  return re.sub(r'\\([0-7]{3})', lambda octal: chr(int(octal[1], 8)), text)


@contextlib.contextmanager
def _opened() -> Iterator['_Memory']:
  try:
    folder = files.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, UserError):
    memory = _Memory(None)  # nothing is remembered
  else:
    memory = _Memory(folder / FILE)
  try:
    yield memory
  finally:
    memory.close()


class _Memory:
  """The digests that are remembered in a file; where it cannot be used, none are.

  A file that is damaged is made anew.
  """

  def __init__(self, path: pathlib.Path | None):
    self._path = path
    self._connection: sqlite3.Connection | None = None
    if path:
      self._connect(path)

  def recall(self, states: Sequence[State]) -> list[str | None]:
    """Returns the digests of files in these states, None for those that are not known."""

    def work(connection: sqlite3.Connection) -> list[str | None]:
      rows = (connection.execute(_RECALL, _signed(state)).fetchone() for state in states)
      return [row and _unsealed(state, row[0]) for state, row in zip(states, rows, strict=True)]

    return self._do(work) or [None] * len(states)

  def remember(self, found: Mapping[State, str]) -> None:
    """Stores digests, in place of those of earlier states, and forgets the oldest of too many."""
    rows = [(*_signed(state), _sealed(state, digest)) for state, digest in found.items()]

    def work(connection: sqlite3.Connection) -> None:
      connection.executemany(_REMEMBER, rows)
      connection.execute(_FORGET, (LARGEST,))

    if rows:
      self._do(work)

  def close(self) -> None:
    """Lets go of the file."""
    if self._connection:
      self._connection.close()
    self._connection = None

  def _connect(self, path: pathlib.Path) -> None:
    def create(connection: sqlite3.Connection) -> None:
      connection.execute('PRAGMA synchronous = OFF')  # what a power cut damages is made anew
      connection.execute(_CREATE)

    with contextlib.suppress(sqlite3.Error):
      self._connection = sqlite3.connect(path, timeout=SECONDS)
    self._do(create)

  def _do(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Returns what some work on the file does, in one transaction; None where it fails."""
    if not self._connection:
      return None
    try:
      with self._connection:
        return work(self._connection)
    except (sqlite3.Error, ValueError) as error:
      self.close()
      # Without a code it is about a value, or a message, that is none of those written.
      code = getattr(error, 'sqlite_errorcode', sqlite3.SQLITE_CORRUPT)
      if code & 0xFF not in _UNAVAILABLE:
        self._begin_anew()
      return None

  def _begin_anew(self) -> None:
    """Removes a damaged file, once, and begins another."""
    path, self._path = self._path, None
    if not path:
      return
    with contextlib.suppress(OSError):
      _remove(path)
      self._connect(path)


def _signed(state: State) -> tuple[int, ...]:
  """Returns the numbers as SQLite takes them, of 63 bits and a sign."""
  return tuple((number + 2**63) % 2**64 - 2**63 for number in state)


def _sealed(state: State, digest: str) -> bytes:
  """Returns a digest with four bytes that tell a damaged one, or one of another file."""
  content = bytes.fromhex(digest)
  check = hashlib.blake2b(repr(tuple(state)).encode() + content, digest_size=4)
  return content + check.digest()


def _unsealed(state: State, sealed: Any) -> str | None:
  if not isinstance(sealed, bytes) or len(sealed) < 4:
    return None
  digest = sealed[:-4].hex()
  return digest if sealed == _sealed(state, digest) else None
