"""Results on their way to a receiver, which may be away for as long as it likes.

Nothing is kept but how far it has come in the journal: what it has not acknowledged is still there,
after a restart, too. A thread sends one event after another, so they arrive in order. One that was
sent when the process was killed, or whose answer was lost, is sent again: at least once.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from patch_svdd_jax.errors import one_line
from patch_svdd_jax.line.journal import Event, Journal, number_of
from patch_svdd_jax.system import files

logger = logging.getLogger(__name__)

FOLDER = 'outbox'
# Seconds between two tries: each is twice the one before, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0


class AwayError(Exception):
  """The receiver cannot be reached, or takes nothing now: try again later."""


class RefusedError(Exception):
  """The receiver will never take this event."""


class Sink(Protocol):
  """Takes events.

  Attributes:
    name: what it is called, in messages and in the name of its file.
  """

  name: str

  def send(self, event: Event) -> None:
    """Returns once the receiver has the event.

    Raises:
      AwayError, RefusedError: it has not, and why.
    """

  def close(self) -> None:
    """Lets go of the receiver."""


class Outbox:
  """Sends the events of a journal to a sink, from where an earlier run came to.

  The first time, from the end of the journal: a new receiver gets no old results.
  """

  def __init__(self, journal: Journal, sink: Sink, *, clock: Callable[[], float] = time.monotonic):
    """Starts the thread.

    Raises:
      UserError: the folder cannot be written.
    """
    self.sink = sink
    self._journal, self._clock = journal, clock
    folder = journal.path.parent / FOLDER
    self._place = folder / f'{sink.name}.json'
    self._refused = folder / f'{sink.name}.refused.jsonl'
    self._position, self._number = self._resume()
    self._save()
    self._stopping, self._deadline = threading.Event(), float('inf')
    self._away_since: float | None = None
    self._thread = threading.Thread(target=self._run, name=sink.name, daemon=True)
    self._thread.start()

  @property
  def waiting(self) -> int:
    """Returns how many events the receiver has not got yet."""
    return self._journal.number - self._number

  def stop(self, deadline: float) -> None:
    """Sends what is left as long as the receiver takes it, at most up to a time of the clock."""
    self._deadline = deadline
    self._stopping.set()
    with self._journal.changed:
      self._journal.changed.notify_all()

  def join(self) -> None:
    """Waits for the end of the thread, as long as an attempt may take."""
    self._thread.join(max(0.0, self._deadline - self._clock()) + 1)

  def _resume(self) -> tuple[int, int]:
    try:
      found = json.loads(self._place.read_bytes())
      if found['stream'] == self._journal.stream and found['position'] <= self._journal.end:
        return int(found['position']), int(found['number'])
    except FileNotFoundError:
      return self._journal.end, self._journal.number
    except (KeyError, TypeError, ValueError):
      logger.warning('%s is damaged: %s gets all results again', self._place, self.sink.name)
    return 0, 0

  def _save(self) -> None:
    about = {
      'stream': self._journal.stream,
      'position': self._position,
      'number': self._number,
    }
    files.write(self._place, json.dumps(about).encode())

  def _run(self) -> None:
    try:
      while self._wait():
        for event in self._journal.read(self._position):
          if self._clock() > self._deadline or not self._deliver(event):
            return
          self._position, self._number = event.end, number_of(event.id)
          self._save()
    except Exception:
      logger.exception('%s: nothing more is sent to it by this run', self.sink.name)
    finally:
      self.sink.close()

  def _wait(self) -> bool:
    """Waits for events; returns whether there are any."""
    with self._journal.changed:
      self._journal.changed.wait_for(
        lambda: self._journal.end > self._position or self._stopping.is_set()
      )
    return self._journal.end > self._position

  def _deliver(self, event: Event) -> bool:
    """Sends an event until the receiver has or refuses it; returns whether it need not be again."""
    wait = FIRST_WAIT
    while True:
      try:
        self.sink.send(event)
      except RefusedError as error:
        self._note(event, str(error))
      except AwayError as error:
        self._say_away(str(error))
        if self._stopping.is_set():
          return False
        self._stopping.wait(wait)
        wait = min(2 * wait, LONGEST_WAIT)
        continue
      self._say_back()
      return True

  def _say_away(self, why: str) -> None:
    if self._away_since is None:
      self._away_since = self._clock()
      logger.warning(
        '%s is away (%s): results wait, and are sent when it is back', self.sink.name, one_line(why)
      )

  def _say_back(self) -> None:
    if self._away_since is not None:
      seconds = self._clock() - self._away_since
      logger.warning(
        '%s is back after %.0f s; %d results are waiting', self.sink.name, seconds, self.waiting
      )
      self._away_since = None

  def _note(self, event: Event, why: str) -> None:
    logger.warning('%s refuses %s (%s): noted in %s', self.sink.name, event.id, why, self._refused)
    with self._refused.open('a') as file:
      file.write(json.dumps({'id': event.id, 'reason': why}) + '\n')
