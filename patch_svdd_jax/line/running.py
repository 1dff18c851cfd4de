"""The line itself: what has arrived is read, scored, drawn, written, and moved out of the way.

One thread decides, and gets what the others have done as jobs, in turn: those that read, the one of
the device, the one that draws. No more images are under way than there are places; the rest waits
where it arrived.
"""

import concurrent.futures
import dataclasses
import datetime
import functools
import os
import queue
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from patch_svdd_jax.data import Split
from patch_svdd_jax.line.album import Album
from patch_svdd_jax.line.journal import Journal, number_of
from patch_svdd_jax.line.latency import Latency
from patch_svdd_jax.reporting.prediction_lines import EVENT, Failure, Line
from patch_svdd_jax.serving.batching import Batcher
from patch_svdd_jax.serving.scoring import DetectorScorer, Scored

# Images that are read at a time: each takes several times its pixels.
READERS = min(4, os.cpu_count() or 1)
# Lines that are written together, at most.
TOGETHER = 64
# Seconds between two looks at what is shown and at what has become due.
TICK = 0.25

Job = Callable[[], None]
Read = Split | str | None


class Item(Protocol):
  """Something that has arrived.

  Attributes:
    name: of the image.
    since: when it arrived, by the monotonic clock.
    digest: of the content of its file, once that was read; '' where there is none.
  """

  name: str
  since: float
  digest: str

  def read(self) -> Read:
    """Returns the image, why it cannot be read, or None where it is not there any more."""


class Feed(Protocol):
  """Where images come from; all but `Item.read` is called by the line's thread.

  Attributes:
    dropped: how many were passed over, for later ones had come.
    ended: whether no more will come.
  """

  dropped: int
  ended: bool

  def start(self, post: Callable[[Job], None]) -> None:
    """Starts: results of other threads are given to `post`, and handled by the line's."""

  def take(self, free: int) -> Iterable[Item]:
    """Returns what is to be read now, at most so much."""

  def due(self) -> float | None:
    """Returns in how many seconds there may be something to take; None where a job will tell."""

  @property
  def waiting(self) -> int:
    """Returns how many have arrived and are not yet taken."""

  def accept(self, item: Any, read: Read) -> Split | Failure | None:
    """Returns what to make of what was read; None where nothing, as it is known, or not whole."""

  def recorded(self, item: Any, line: Line, number: int) -> None:
    """Hears that a line of an item is on disk."""

  def stop(self) -> None:
    """Ends the threads."""


@dataclasses.dataclass
class Done:
  """An item with its line, and what the record has besides."""

  item: Item
  event_id: str
  line: Line
  more: dict[str, Any]


class Running:
  """A line from a feed to a journal.

  Attributes:
    images, alarms, failures: lines of this run.
    latency: from arrival until a line is on disk.
  """

  def __init__(
    self,
    feed: Feed,
    scorer: DetectorScorer,
    journal: Journal,
    album: Album,
    about: dict[str, Any],
    show: Callable[['Running'], None],
  ):
    """Makes a line, which `run` starts.

    Args:
      feed: where images come from.
      scorer: that can score one image at least.
      journal: where lines go.
      album: where pictures go.
      about: what all records have besides.
      show: is called several times a second.
    """
    self.feed, self.latency = feed, Latency()
    self.images = self.alarms = self.failures = 0
    self._scorer, self._journal, self._album, self._about = scorer, journal, album, about
    self._show = show
    self._under_way = 0
    self._places = 2 * scorer.sizes()[-1] + READERS
    self._stopping = False
    self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    self._finished: list[Done] = []

  @property
  def waiting(self) -> int:
    """Returns how many images have arrived and have no line yet."""
    return self.feed.waiting + self._under_way

  def stop(self) -> None:
    """Lets `run` end once what is under way is done; may be called by a signal's handler."""
    self._stopping = True
    self._jobs.put(_nothing)

  def run(self) -> None:
    """Runs until it is stopped, or the feed has ended.

    Raises:
      UserError: nothing more can be written.
    """
    scorer = self._scorer
    self._batcher = Batcher(
      scorer.score,
      batch_size=lambda: scorer.batch_size,
      grow=scorer.grow,
      places=self._places,
    )
    with (
      concurrent.futures.ThreadPoolExecutor(READERS, 'read') as self._readers,
      concurrent.futures.ThreadPoolExecutor(1, 'draw') as self._painter,
    ):
      try:
        self.feed.start(self._jobs.put)
        while self._under_way or not (self._stopping or self.feed.ended):
          self._step()
      finally:
        self.feed.stop()
        self._batcher.close()

  def _step(self) -> None:
    """Takes what has arrived, and does the jobs that there are."""
    if not self._stopping:
      for item in self.feed.take(self._places - self._under_way):
        self._under_way += 1
        self._readers.submit(self._read, item)
    self._show(self)
    is_free = self._places > self._under_way and not self._stopping
    due = self.feed.due() if is_free else None
    try:
      self._jobs.get(timeout=TICK if due is None else max(0.0, min(TICK, due)))()
      while len(self._finished) < TOGETHER:
        self._jobs.get_nowait()()
    except queue.Empty:
      pass
    self._write()

  def _read(self, item: Item) -> None:
    try:
      job = functools.partial(self._was_read, item, item.read())
    except BaseException as error:  # noqa: BLE001  raised where it ends the line
      job = functools.partial(_fail, error)
    self._jobs.put(job)

  def _was_read(self, item: Item, read: Read) -> None:
    found = self.feed.accept(item, read)
    if found is None:
      self._under_way -= 1
    elif isinstance(found, Failure):
      more = {'digest': item.digest} if item.digest else {}
      self._finish(item, lambda _: (found, more))
    else:
      future = self._batcher.submit(found)
      future.add_done_callback(
        lambda future: self._jobs.put(lambda: self._was_scored(item, found, future.result()))
      )

  def _was_scored(self, item: Item, split: Split, found: Scored) -> None:
    line = dataclasses.replace(found.prediction, digest=item.digest)
    self._finish(item, lambda event: (line, self._album.draw(item, line, split, found.map, event)))

  def _finish(self, item: Item, draw: Callable[[str], tuple[Line, dict[str, Any]]]) -> None:
    """Lets the painter draw; it is one thread, so lines keep the order in which they came here."""
    event_id = self._journal.next_id()
    future = self._painter.submit(lambda: Done(item, event_id, *draw(event_id)))
    future.add_done_callback(
      lambda future: self._jobs.put(lambda: self._finished.append(future.result()))
    )

  def _write(self) -> None:
    """Writes the lines that are finished, then lets the feed move what they are of."""
    done, self._finished = self._finished, []
    if not done:
      return
    self._journal.add([self._record(each) for each in done])
    for each in done:
      self.latency.add(time.monotonic() - each.item.since)
      self._under_way -= 1
      self.images += 1
      self.failures += isinstance(each.line, Failure)
      self.alarms += bool(not isinstance(each.line, Failure) and each.line.alarm)
      self.feed.recorded(each.item, each.line, number_of(each.event_id))

  def _record(self, done: Done) -> dict[str, Any]:
    seconds = time.monotonic() - done.item.since
    arrived = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    about = {EVENT: done.event_id, 'time': arrived.isoformat(timespec='milliseconds')}
    about |= {'seconds': round(seconds, 4)} | self._about
    return about | done.line.to_json() | done.more


def _nothing() -> None:
  pass


def _fail(error: BaseException) -> None:
  raise error
