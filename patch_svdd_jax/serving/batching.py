"""Requests of many connections as batches for one thread, which owns the device."""

import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

# Without a request after which the thread has time for what later ones will need.
IDLE_SECONDS = 0.5

Item = TypeVar('Item')
Result = TypeVar('Result')


class FullError(Exception):
  """All places are taken, or it is closed."""


class Batcher(Generic[Item, Result]):
  """One thread that works on what is waiting, so many items at a time.

  A place is taken before an item is even read, and until it is answered, so that the places bound
  the memory of all that is under way.
  """

  def __init__(
    self,
    work: Callable[[list[Item]], Sequence[Result]],
    *,
    batch_size: Callable[[], int],
    grow: Callable[[], bool],
    places: int,
  ):
    """Starts the thread.

    Args:
      work: results of 1 to `batch_size` items, in their order.
      batch_size: items at a time, at most, at this moment.
      grow: makes larger batches possible, and returns whether it did. It is called in the thread
        until it does not: when no item has come for a moment, or more wait than a batch takes.
      places: items under way, at most.
    """
    self.places = places
    self._work, self._batch_size, self._grow = work, batch_size, grow
    self._taken = 0
    self._closed = False
    self._lock = threading.Lock()
    # Bounded by the places. None is the end.
    self._waiting: queue.SimpleQueue[tuple[Item, concurrent.futures.Future[Result]] | None] = (
      queue.SimpleQueue()
    )
    self._thread = threading.Thread(target=self._run, name='device', daemon=True)
    self._thread.start()

  @property
  def taken(self) -> int:
    """Places that are taken."""
    return self._taken

  @contextlib.contextmanager
  def place(self) -> Iterator[None]:
    """Takes a place for as long as the body takes.

    Raises:
      FullError: there is none.
    """
    with self._lock:
      if self._closed or self._taken >= self.places:
        raise FullError
      self._taken += 1
    try:
      yield
    finally:
      with self._lock:
        self._taken -= 1

  def submit(self, item: Item) -> concurrent.futures.Future[Result]:
    """Lets an item wait for its batch; whoever calls has a place.

    A batch whose work fails fails for all of its items, with that error. An item whose future is
    cancelled in time is not worked on.

    Raises:
      FullError: it is closed.
    """
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()
    with self._lock:
      if self._closed:
        raise FullError
      self._waiting.put((item, future))
    return future

  def close(self) -> None:
    """Takes nothing any more, works on what waits, and ends the thread."""
    with self._lock:
      if not self._closed:
        self._closed = True
        self._waiting.put(None)
    self._thread.join()

  def _run(self) -> None:
    growing = True
    while True:
      if growing and not self._closed and self._waiting.qsize() > self._batch_size():
        growing = self._larger()
      try:
        first = self._waiting.get(timeout=IDLE_SECONDS if growing else None)
      except queue.Empty:
        growing = self._larger()
        continue
      if first is None:
        break
      batch, ended = [first], False
      while len(batch) < self._batch_size() and not ended:
        try:
          following = self._waiting.get_nowait()
        except queue.Empty:
          break
        if following is None:
          ended = True
        else:
          batch.append(following)
      self._answer([(item, f) for item, f in batch if f.set_running_or_notify_cancel()])
      if ended:
        break

  def _larger(self) -> bool:
    try:
      return self._grow()
    except Exception:
      logger.exception('batches of more than %d images are done without', self._batch_size())
      return False

  def _answer(self, batch: list[tuple[Item, concurrent.futures.Future[Result]]]) -> None:
    if not batch:
      return
    try:
      results = self._work([item for item, _ in batch])
    except Exception as error:
      logger.exception('a batch of %d images failed', len(batch))
      for _, future in batch:
        future.set_exception(error)
      return
    for (_, future), result in zip(batch, results, strict=True):
      future.set_result(result)
