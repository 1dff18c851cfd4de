"""Folders in a store, worked on in copies on this machine.

What reads and writes a folder needs a disk: names that change, locks, files that grow. A folder in
a store is fetched, worked on as any other, and what has changed in it is uploaded: at once where
`wake` is called, every 30 seconds, and at the end. Files go up in the order in which they were
written, so that the store always has what this disk had at some time. A numbered folder of a
checkpoint or detector has orbax's own commit file and its digests uploaded last and removed first;
one that lacks its digests is never fetched.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import logging
import math
import os
import pathlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digests, files, locks, store
from patch_svdd_jax.system.batching import Bar
from patch_svdd_jax.system.lease import FOLDER as LEASE
from patch_svdd_jax.system.lease import Lease, LostError
from patch_svdd_jax.system.store import Found, Store

FOLDER = 'copies'
RHYTHM = 30.0  # seconds between two uploads
# What a numbered folder has once it is whole: by orbax, and by `digests.seal`.
SEALS = ('commit_success.txt', digests.FILE)
# Requests under way at once.
PARALLEL = 16
# A folder that is whole or not there.
_NUMBERED = re.compile(r'((?:.*/)?(?:checkpoints|model)/\d+)/')
# Parts of names that are not to be seen by others yet, or no longer.
_PASSING = re.compile(
  rf'{re.escape(files.UNFINISHED)}$|{re.escape(files.LOCK)}$|\.removed$|^removed_|'
  r'orbax-checkpoint-tmp|^\.lease$'
)
_OWNER = '.owner'


# The URLs that folders and files here are copies of.
_URLS: dict[pathlib.Path, str] = {}


class CopiedPath(type(pathlib.Path())):  # type: ignore[misc]
  """A path in a copy of what a store has. Messages, which are formatted, show the URL instead."""

  def __format__(self, spec: str) -> str:
    """Returns the URL, as text in the usual way."""
    return format(shown(self), spec)


def copied(path: pathlib.Path, url: str) -> CopiedPath:
  """Returns the path of a copy, which messages show as the URL from now on."""
  place = pathlib.Path(os.path.realpath(path))
  _URLS[place] = url
  return CopiedPath(place)


def shown(path: pathlib.Path) -> str:
  """Returns a path as its user knows it: in a copy, the URL."""
  place = pathlib.Path(path).absolute() if _URLS else pathlib.Path()
  for each in (place, *place.parents):
    if each in _URLS:
      inside = place.relative_to(each).as_posix()
      return _URLS[each] if each == place else f'{_URLS[each]}/{inside}'
  return str(path)


class _State(NamedTuple):
  """Identifies a version of a file: another one has another inode, size or time."""

  inode: int
  size: int
  modified: int


class WorkingCopy:
  """A folder or file of a store and its copy, whose path is `path`."""

  def __init__(self, url: str):
    """Makes the folder of the copy; fetches nothing yet.

    Raises:
      UserError: the URL names no folder, or the cache folder cannot be written.
    """
    self.url = url.rstrip('/')
    parent, self._name = store.split_url(self.url)
    self._store = Store(parent)
    self.base, self._owner = _new_base()
    self.path = copied(self.base / self._name, self.url)
    self.leases: list[Lease] = []
    # Of several processes with a copy each, the first one uploads.
    self.uploads = True
    # Names of folders in it that are not fetched.
    self.without: Collection[str] = ()
    self._remote: dict[str, Found] = {}
    self._local: dict[str, _State] = {}
    self._pass = threading.Lock()
    self._ended, self._woken = threading.Event(), threading.Event()
    self._thread: threading.Thread | None = None
    _OPEN[self.base] = self

  def fetch(self) -> None:
    """Makes the copy what the store has: fetches what is new there, removes what is gone.

    Raises:
      UserError: the store cannot be read.
    """
    listed = self._store.list(self._name)
    left_out = tuple(f'{self._name}/{each}/' for each in self.without)
    found = {
      name: each
      for name, each in listed.items()
      if _is_whole(name, listed) and not name.startswith(left_out or '\0')
    }
    new = [name for name, each in found.items() if self._remote.get(name) != each]

    def get(name: str) -> None:
      self._store.get(name, self.base / name, found[name].size)

    each_at_once(get, new, 'Fetching')
    for name in self._remote.keys() - found.keys():
      (self.base / name).unlink(missing_ok=True)
    self._remote = found
    self._local = {name: _state(self.base / name) for name in found}

  def start(self) -> None:
    """Lets a thread upload what changes, from now on."""
    if not self.uploads:
      return
    self._thread = threading.Thread(target=self._repeat, daemon=True, name=f'copy of {self.url}')
    self._thread.start()

  def wake(self) -> None:
    """Uploads what has changed as soon as may be, without waiting for it."""
    self._woken.set()

  def upload(self, *, meanwhile: bool = False) -> None:
    """Uploads what has changed, and removes what is gone.

    Args:
      meanwhile: whether files are written while others are listed. What is younger than the list
        waits for the next one then, or what it speaks of may not be there.

    Raises:
      UserError: the store cannot be written, or another run has taken it over.
    """
    with self._pass:
      end = time.time_ns() if meanwhile else math.inf
      now = dict(_listed(self.base, self._name))
      changed = {
        name: state
        for name, state in now.items()
        if state != self._local.get(name) and state.modified < end
      }
      gone = self._local.keys() - now.keys()
      for part in _parts(changed):
        each_at_once(lambda name: self._put(name, changed[name]), part, 'Uploading')
      self._remove(gone)

  def __enter__(self) -> 'WorkingCopy':
    self.fetch()
    return self

  def __exit__(self, *_: object) -> None:
    """Uploads what is left and removes the copy.

    Raises:
      UserError: it could not be uploaded; the copy stays, and is named.
    """
    self._ended.set()
    self._woken.set()
    if self._thread:
      self._thread.join()
    try:
      if self.uploads:
        self.upload()
    except LostError:
      self._discard()
      raise
    except UserError as error:
      self._owner.close()
      (self.base / _OWNER).unlink(missing_ok=True)
      raise UserError(f'{error}; what was made is kept in {self.base / self._name}') from error
    else:
      self._discard()
    finally:
      del _OPEN[self.base], _URLS[self.path]

  def _discard(self) -> None:
    locks.let_go_to_remove(self._owner)
    shutil.rmtree(self.base, ignore_errors=True)
    self._owner.close()

  def _put(self, name: str, state: _State) -> None:
    """Uploads a file as it was when it was listed; one that is another since comes later."""
    path = self.base / name
    try:
      with path.open('rb') as file:
        if _state_of(os.fstat(file.fileno())).inode != state.inode:
          return
        contents = file.read(state.size)
    except FileNotFoundError:
      return
    self._check()
    self._store.write(name, contents)
    self._local[name] = state

  def _remove(self, gone: Collection[str]) -> None:
    for part in (filter(_is_seal, gone), itertools.filterfalse(_is_seal, gone)):
      each_at_once(self._drop, list(part), 'Removing')
    for name in gone:
      del self._local[name]

  def _drop(self, name: str) -> None:
    self._check()
    self._store.remove(name)

  def _check(self) -> None:
    for lease in self.leases:
      lease.check()

  def _repeat(self) -> None:
    failed = False
    while not self._ended.is_set():
      self._woken.wait(RHYTHM)
      self._woken.clear()
      if self._ended.is_set():
        return
      try:
        self.upload(meanwhile=True)
        failed = False
      except LostError:
        return  # the lease's own thread ends the process
      except UserError as error:
        if not failed:
          logging.getLogger(__name__).warning('%s; it is tried again until the end', error)
        failed = True


_OPEN: dict[pathlib.Path, WorkingCopy] = {}


def of(path: pathlib.Path) -> WorkingCopy | None:
  """Returns the working copy that a path is in, if it is in one."""
  if not _OPEN:
    return None
  place = pathlib.Path(path).absolute()
  return next((_OPEN[each] for each in place.parents if each in _OPEN), None)


def named_by(values: Iterable[Any]) -> list[WorkingCopy]:
  """Returns the working copies whose paths are among some values, or in lists of them."""
  flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
  return [copy for value in flat if isinstance(value, pathlib.Path) and (copy := of(value))]


def place(text: Any, key: str = '') -> pathlib.Path:
  """Returns the path of a folder or file, as `files.place`, or of a new working copy of a URL.

  Nothing is fetched yet.
  """
  return WorkingCopy(text).path if store.is_url(text) else files.place(text, key)


def wake(path: pathlib.Path) -> None:
  """Uploads what has changed in the working copy that a path is in, if it is in one."""
  if copy := of(path):
    copy.wake()


def upload(path: pathlib.Path) -> None:
  """Uploads as `wake` does, and waits for it."""
  if (copy := of(path)) and copy.uploads:
    copy.upload()


@contextlib.contextmanager
def opened(text: Any, key: str = '') -> Iterator[pathlib.Path]:
  """Yields a path as `place` does, fetched, and uploads at the end what was made there."""
  path = place(text, key)
  copy = of(path)
  with copy or contextlib.nullcontext():
    if copy:
      copy.start()
    yield path


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps a folder from other runs, as `files.locked` or in a store by a lease.

  Raises:
    UserError: another run has it, or it cannot be written.
  """
  copy = of(folder)
  if copy is None:
    with files.locked(folder):
      yield
    return
  lease = Lease(shown(folder))
  lease.take()
  copy.leases.append(lease)
  try:
    yield
  finally:
    copy.upload()
    copy.leases.remove(lease)
    lease.release()


def sweep() -> None:
  """Removes copies whose processes were killed."""
  folder = files.cache_folder() / FOLDER
  for owner in folder.glob(f'*/{_OWNER}'):
    with contextlib.suppress(OSError), locks.lock(owner, needed=True) as file:
      locks.let_go_to_remove(file)
      shutil.rmtree(owner.parent, ignore_errors=True)


def _new_base() -> tuple[pathlib.Path, Any]:
  sweep()
  folder = pathlib.Path(os.path.realpath(files.cache_folder())) / FOLDER
  with files.explained(folder):
    while True:
      base = folder / uuid.uuid4().hex
      base.mkdir(parents=True, mode=0o700)
      # The system lets go of it when the process ends, however it does. Another process may sweep
      # the copy before it is locked.
      with contextlib.suppress(BlockingIOError, FileNotFoundError):
        return base, locks.lock(base / _OWNER)


def _is_whole(name: str, listed: Mapping[str, Found]) -> bool:
  """Returns whether an object is to be fetched."""
  if f'/{LEASE}/' in name:
    return False
  numbered = _NUMBERED.match(name)
  return not numbered or f'{numbered[1]}/{digests.FILE}' in listed


def _is_seal(name: str) -> bool:
  """Returns whether a file says that a numbered folder is whole."""
  numbered = _NUMBERED.match(name)
  return numbered is not None and name.removeprefix(f'{numbered[1]}/') in SEALS


def _listed(base: pathlib.Path, name: str) -> Iterator[tuple[str, _State]]:
  """Yields the files of a copy that others may see."""
  if (base / name).is_file():
    yield name, _state(base / name)
    return
  for folder, folders, names in os.walk(base / name):
    folders[:] = [each for each in folders if not _PASSING.search(each)]
    for each in names:
      if not _PASSING.search(each):
        path = pathlib.Path(folder, each)
        with contextlib.suppress(FileNotFoundError):
          yield path.relative_to(base).as_posix(), _state(path)


def _parts(changed: Mapping[str, _State]) -> Iterator[list[str]]:
  """Yields files in the order in which they were written, those together whose order is free.

  Those right in the folder that was named say what lies deeper, and come alone, as digests do.
  """
  names = sorted(changed, key=lambda name: (changed[name].modified, name))
  together = itertools.groupby(names, key=lambda name: name.count('/') > 1 and not _is_seal(name))
  for is_free, part in together:
    yield from [list(part)] if is_free else ([name] for name in part)


def _state(path: pathlib.Path) -> _State:
  return _state_of(path.stat())


def _state_of(found: os.stat_result) -> _State:
  return _State(found.st_ino, found.st_size, found.st_mtime_ns)


def each_at_once(work: Callable[[str], None], names: Collection[str], title: str) -> None:
  """Calls `work` with each name, some at once; the first error ends it."""
  if not names:
    return
  with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
    tasks = pool.map(work, names)
    # tqdm keeps its lock where a bar cannot be written, as into a pipe that was closed: a thread
    # with a bar of its own would then wait for ever.
    if threading.current_thread() is threading.main_thread():
      tasks = Bar(tasks, total=len(names), desc=title, unit='file', delay=1, leave=False)
    try:
      collections.deque(tasks, maxlen=0)
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
