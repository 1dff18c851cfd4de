"""Image files as they arrive below a folder; half-written ones are waited for.

The system tells of changes as they happen, where it does. Whatever it tells, the folder is gone
through as well, at the start and every few seconds: events may be lost (too many at once, a network
folder, a sub-folder that was filled before it was watched), and then come a little later.

A file is read once its size and time of modification have not changed for a moment, and is waited
for on until it can be decoded. One whose content has a line already is left alone.
"""

import dataclasses
import functools
import heapq
import itertools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split, file_search, image_stream, images
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.line import moving
from patch_svdd_jax.line.journal import number_of
from patch_svdd_jax.line.listening import Listener, roots_of
from patch_svdd_jax.line.moving import State, state_of
from patch_svdd_jax.reporting.prediction_lines import EVENT, Failure, Line
from patch_svdd_jax.system.digest_cache import digest_files
from patch_svdd_jax.system.digests import digest_bytes

logger = logging.getLogger(__name__)

# Seconds from the end of one search of the folder to the next, at least and in times of its length:
# beside events, and instead of them.
BESIDE, INSTEAD = (10.0, 20.0), (1.0, 5.0)
# Seconds to the next attempt to decode a file, at most; the first comes after a quarter of those
# for which it has been waited for.
LONGEST_WAIT = 1.0


@dataclasses.dataclass(frozen=True)
class Options:
  """How files are waited for, and where they go.

  Attributes:
    settle: seconds for which a file must not have changed.
    patience: seconds for which one that cannot be decoded must not have.
    poll: whether to do without events.
    good, bad: folders that files are moved to; None where they stay.
    without: folders that are passed over.
  """

  settle: float = 0.05
  patience: float = 10.0
  poll: bool = False
  good: pathlib.Path | None = None
  bad: pathlib.Path | None = None
  without: tuple[pathlib.Path, ...] = ()


class Known(NamedTuple):
  """A content that has a line."""

  state: State
  digest: str


@dataclasses.dataclass
class Waiting:
  """A file that is to be read.

  Attributes:
    path: of it.
    state: as it was seen last; None before.
    since: when it was first seen in this state.
  """

  path: pathlib.Path
  state: State | None
  since: float


@dataclasses.dataclass
class File:
  """A file that is to be read; see `Item`."""

  name: str
  path: pathlib.Path
  since: float
  state: State
  config: ml_collections.ConfigDict
  room: image_stream.Room
  region: np.ndarray | None = None
  digest: str = ''

  def read(self) -> Split | str | None:
    """Returns the image, or why there is none; None where the file has changed meanwhile."""
    found = image_stream.attempt(Source(self.name, self.path), self.config, self.room, self.region)
    self.digest = _digest(self.path) if isinstance(found, str) else found.digests[0]
    return found if state_of(self.path) == self.state else None


class Folder:
  """A feed of the files below a folder."""

  dropped, ended = 0, False

  def __init__(
    self,
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    options: Options,
    *,
    region: np.ndarray | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Makes a feed.

    Args:
      folder: that images arrive below.
      config: config.data of the detector.
      options: how.
      region: of interest, bool[H, W], that all images have in common.
      clock: of seconds.

    Raises:
      UserError: the folder is not there.
    """
    if not folder.is_dir():
      raise UserError(f'{folder}: no such folder')
    self._folder, self._config, self._options, self._clock = folder, config, options, clock
    self._region = region
    self._without = tuple(
      each for each in (options.good, options.bad, *options.without) if each is not None
    )
    self._room = image_stream.Room()
    self._known: dict[str, Known] = {}
    self._waiting: dict[str, Waiting] = {}
    self._reading: dict[str, pathlib.Path] = {}
    # Those of which something was heard while they were read.
    self._again: set[str] = set()
    self._due: list[tuple[float, int, str]] = []
    self._order = itertools.count()
    self._stopping = threading.Event()
    self._threads: list[threading.Thread] = []

  def resume(self, records: Iterable[Mapping[str, Any]]) -> None:
    """Takes what is in the folder now, but for what has a line.

    Files that were to be moved when a run was killed are moved.

    Args:
      records: of the journal.
    """
    there = {source.name: source.path for source in self._search()}
    last: dict[str, tuple[str, str, int]] = {}
    for record in records:
      name = record['image']
      # Of what was moved nothing is kept: another file of its name is another image.
      if name in there or not self._options.good:
        last[name] = record.get('digest', ''), record.get('verdict', ''), number_of(record[EVENT])
    both = [name for name in there if name in last]
    states = {name: state_of(there[name]) for name in both}
    for name, digest in zip(both, _digests([there[name] for name in both]), strict=True):
      state, (before, verdict, number) = states[name], last[name]
      if state and digest == before:
        self._known[name] = Known(state, digest)
        if verdict:
          self._move(name, there[name], verdict == 'alarm', number, digest)
    for name, (digest, _, _) in last.items():
      if name not in there:
        self._known[name] = Known(State(-1, -1, -1), digest)
    for name, path in there.items():
      self.notice(name, path)

  def notice(self, name: str, path: pathlib.Path) -> None:
    """Hears that something may have happened to a file."""
    if name in self._reading:
      self._again.add(name)
    elif name not in self._waiting:
      state, now = state_of(path), self._clock()
      if state and not self._is_known(name, state):
        self._waiting[name] = Waiting(path, state, now)
        self._look(name, now + self._options.settle)

  def _is_known(self, name: str, state: State) -> bool:
    known = self._known.get(name)
    return known is not None and known.state == state

  def _look(self, name: str, when: float) -> None:
    heapq.heappush(self._due, (when, next(self._order), name))

  @property
  def waiting(self) -> int:
    """Returns how many files are to be read."""
    return len(self._waiting)

  def due(self) -> float | None:
    """Returns in how many seconds a file is to be looked at; None where there is none."""
    return max(0.0, self._due[0][0] - self._clock()) if self._due else None

  def take(self, free: int) -> Iterable[File]:
    """Returns at most so many files that have not changed for long enough; see `Feed`."""
    now, taken = self._clock(), list[File]()
    while self._due and self._due[0][0] <= now and len(taken) < free:
      _, _, name = heapq.heappop(self._due)
      each = self._waiting[name]
      state = state_of(each.path)
      if state is None or self._is_known(name, state):
        del self._waiting[name]
      elif state != each.state:
        each.state, each.since = state, now
        self._look(name, now + self._options.settle)
      else:
        del self._waiting[name]
        self._reading[name] = each.path
        taken.append(
          File(name, each.path, each.since, state, self._config, self._room, self._region)
        )
    return taken

  def accept(self, item: File, read: Split | str | None) -> Split | Failure | None:
    """Returns what is new of a file that was read; see `Feed`."""
    now = self._clock()
    waited = now - item.since
    if read is None or (isinstance(read, str) and waited < self._options.patience):
      del self._reading[item.name]
      self._again.discard(item.name)
      self._waiting[item.name] = Waiting(item.path, item.state, item.since)
      wait = min(LONGEST_WAIT, max(self._options.settle, waited / 4))
      self._look(item.name, now + (0 if read is None else wait))
      return None
    known = self._known.get(item.name)
    if known and known.digest == item.digest:
      self._known[item.name] = Known(item.state, item.digest)
      self._let_go(item.name)
      return None
    return read if isinstance(read, Split) else Failure(item.name, read)

  def recorded(self, item: File, line: Line, number: int) -> None:
    """Remembers the content, and moves the file; see `Feed`."""
    self._known[item.name] = Known(item.state, item.digest)
    if isinstance(line, Prediction):
      self._move(item.name, item.path, bool(line.alarm), number)
    self._let_go(item.name)

  def _let_go(self, name: str) -> None:
    path = self._reading.pop(name)
    if name in self._again:
      self._again.remove(name)
      self.notice(name, path)

  def _move(
    self, name: str, path: pathlib.Path, alarm: bool, number: int, digest: str = ''
  ) -> None:
    """Moves a file, if files are moved; what cannot be moved is tried again at the next start."""
    place = self._options.bad if alarm else self._options.good
    if place is None:
      return
    try:
      if moving.move(path, place / name, number, self._known[name].state, digest):
        del self._known[name]
    except OSError as error:
      logger.warning('%s stays where it is: %s', path, error.strerror)

  def start(self, post: Callable[[Callable[[], None]], None]) -> None:
    """Starts to look for files, in threads; see `Feed`."""
    searching = threading.Thread(target=self._watch, args=(post,), name='search', daemon=True)
    self._threads = [searching]
    searching.start()

  def stop(self) -> None:
    """Ends the threads."""
    self._stopping.set()
    for thread in self._threads:
      thread.join()

  def _search(self) -> list[Source]:
    return file_search.below(self._folder, self._without)

  def _watch(self, post: Callable[[Callable[[], None]], None]) -> None:
    """Goes through the folder again and again, and listens to the folders that it finds."""
    listener: Listener | None = None
    said = ''
    while not self._stopping.is_set():
      begun = self._clock()
      try:
        sources, said = self._search(), ''
      except UserError as error:  # a folder that went meanwhile, or a network that is away
        sources = []
        if str(error) != said:
          logger.warning('%s', one_line(str(error)))
        said = str(error)
      for name, path in sources:
        state = state_of(path)
        if state and not self._is_known(name, state):
          post(functools.partial(self.notice, name, path))
      before = listener
      if not self._options.poll:
        listener = self._listen(listener, sources, post)
      # What came before a new listener was ready is found by the next search.
      least, times = BESIDE if listener and listener is before and listener.hears else INSTEAD
      self._stopping.wait(max(least, times * (self._clock() - begun)))
    if listener:
      listener.stop()

  def _listen(
    self,
    listener: Listener | None,
    sources: Iterable[Source],
    post: Callable[[Callable[[], None]], None],
  ) -> Listener | None:
    """Returns one that listens to the folder and to those that links in it lead to."""
    roots = roots_of(self._folder, sources)
    if listener and listener.roots == roots and listener.hears:
      return listener
    if listener:
      listener.stop()

    def hear(name: str, path: pathlib.Path) -> None:
      if not any(path.is_relative_to(each) for each in passed_over):
        post(functools.partial(self.notice, name, path))

    passed_over = [pathlib.Path(os.path.realpath(each)) for each in self._without]
    return Listener(roots, hear)


def _digest(path: pathlib.Path) -> str:
  try:
    return digest_bytes(images.read_bytes(path))
  except UserError:
    return ''


def _digests(paths: list[pathlib.Path]) -> list[str]:
  """Returns the digests of files, '' of those that cannot be read."""
  try:
    return digest_files(paths)
  except UserError:
    return [_digest(path) for path in paths]
