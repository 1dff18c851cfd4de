"""Frames of a camera, the newest of which is scored; a video file plays as a camera would."""

import dataclasses
import datetime
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.prediction_lines import Failure, Line

logger = logging.getLogger(__name__)

# Seconds between two attempts to open a camera that went away: each is twice the one before.
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
# Frames under way at a time: one is prepared while another is scored. More would only wait.
UNDER_WAY = 2
# Frames a second of a video that says nothing of it.
RATE = 25.0

Prepare = Callable[[np.ndarray, str], Split]


@dataclasses.dataclass
class Frame:
  """A frame u8[H, W, 3] in RGB order; see `Item`."""

  name: str
  since: float
  frame: np.ndarray
  prepare: Prepare
  digest: str = ''

  def read(self) -> Split:
    """Returns it as the detector expects it."""
    return self.prepare(self.frame, self.name)


def name_of(when: datetime.datetime, number: int) -> str:
  """Returns what a frame is called: its time in UTC, and its number since the start."""
  text = when.astimezone(datetime.UTC).strftime('%Y%m%dT%H%M%S.%f')
  return f'{text[:-3]}Z-{number:06d}.png'


class Camera:
  """A feed of the frames of a camera; those that nobody takes in time are dropped, and counted."""

  def __init__(
    self,
    source: str,
    prepare: Prepare,
    every: float = 0.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  ):
    """Opens the camera.

    Args:
      source: the number of a camera, the path of a video file, or a URL such as rtsp://.
      prepare: of the scorer.
      every: seconds from one frame that is taken to the next, at least.
      clock: of seconds.
      now: the time of day.

    Raises:
      UserError: there is no such camera.
    """
    self.dropped, self.ended = 0, False
    self._source, self._prepare, self._every = source, prepare, every
    self._clock, self._now = clock, now
    self._is_file = pathlib.Path(source).is_file()
    self._lock = threading.Lock()
    self._newest: Frame | None = None
    self._next, self._number, self._under_way = float('-inf'), 0, 0
    self._stopping = threading.Event()
    self._wait = FIRST_WAIT
    self._capture = self._open()
    if not self._capture.isOpened():
      raise UserError(f'--camera: {shown(source)} cannot be opened')
    self._thread: threading.Thread | None = None

  def _open(self) -> cv2.VideoCapture:
    return cv2.VideoCapture(int(self._source) if self._source.isdecimal() else self._source)

  @property
  def waiting(self) -> int:
    """Returns whether a frame has come that nobody has taken."""
    return int(self._newest is not None)

  def start(self, post: Callable[[Callable[[], None]], None]) -> None:
    """Starts to read frames in a thread; see `Feed`."""
    self._thread = threading.Thread(target=self._run, args=(post,), name='camera', daemon=True)
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread, unless the camera keeps it."""
    self._stopping.set()
    if self._thread:
      self._thread.join(2)

  def due(self) -> float | None:
    """Returns None: a frame that comes is told of; see `Feed`."""
    return None

  def take(self, free: int) -> Iterable[Frame]:
    """Returns the newest frame, if there is one and it can be scored at once; see `Feed`."""
    with self._lock:
      frame = self._newest
      if frame is None or not free or self._under_way >= UNDER_WAY:
        return []
      self._newest = None
      self._under_way += 1
      self._next = self._clock() + self._every
    return [frame]

  def accept(self, _: Frame, read: Any) -> Split | Failure | None:
    """Returns the frame as it was read; see `Feed`."""
    return read  # type: ignore[no-any-return]

  def recorded(self, _: Frame, line: Line, number: int) -> None:
    """Makes room for another; see `Feed`."""
    self._under_way -= 1

  def _run(self, post: Callable[[Callable[[], None]], None]) -> None:
    rate = self._capture.get(cv2.CAP_PROP_FPS) or RATE
    begun = self._clock()
    while not self._stopping.is_set():
      whole, frame = self._capture.read()
      if whole:
        if self._wait > FIRST_WAIT:
          logger.warning('%s is back', shown(self._source))
        self._wait = FIRST_WAIT
        self._came(frame)
        post(_nothing)
        if self._is_file:
          self._stopping.wait(max(0.0, begun + self._number / rate - self._clock()))
      elif self._is_file:
        self._wait_until_taken()
        self.ended = True
        post(_nothing)
        break
      elif not self._stopping.is_set():
        self._reopen()
    self._capture.release()

  def _came(self, frame: np.ndarray) -> None:
    now = self._clock()
    name = name_of(self._now(), self._number)
    self._number += 1
    with self._lock:
      if now < self._next:
        return
      self.dropped += self._newest is not None
      self._newest = Frame(name, now, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), self._prepare)

  def _wait_until_taken(self) -> None:
    while self._newest is not None and not self._stopping.wait(0.01):
      pass

  def _reopen(self) -> None:
    """Waits, and opens a camera that went away; it may be open and give nothing yet."""
    if self._wait == FIRST_WAIT:
      logger.warning('%s gives no frames: it is opened again and again', shown(self._source))
    self._capture.release()
    if not self._stopping.wait(self._wait):
      self._wait = min(2 * self._wait, LONGEST_WAIT)
      self._capture = self._open()


def shown(source: str) -> str:
  """Returns what a camera is called in messages, without a password in its URL."""
  head, at, rest = source.rpartition('@')
  return f'{head.partition("://")[0]}://{rest}' if at and '://' in head else source


def _nothing() -> None:
  pass
