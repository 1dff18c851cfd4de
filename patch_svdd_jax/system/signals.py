"""Ctrl-C and SIGTERM in the process of a command: one line and a status, at any moment.

Python calls a signal's handler when its main thread is back from what it computes, which may be a
minute later, and what the handler raises may be lost in a callback or an import. So a thread reads
the signals besides, as they come, and ends a process that does not end by itself.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Seconds that what was interrupted has to remove its unfinished files.
TIDY = 5.0


class _Watch:
  """The signals that this process has had.

  Attributes:
    patience: seconds from a signal to the end; None where who listens ends by itself.
    caught: the first signal, 0 before.
    raised: the one that was raised in the main thread, 0 before.
    taken: whether signals are this module's.
    writer: gets the signals from Python.
  """

  patience: float | None = 0.0
  caught = raised = 0
  taken = False
  said = threading.Lock()
  writer: socket.socket


def take() -> None:
  """Takes the signals of this process, but those that it was started without, as by `nohup`."""
  _Watch.taken = True
  for number in SIGNALS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _handle)
  # Of Windows, `select` knows sockets alone.
  reader, _Watch.writer = socket.socketpair()
  _Watch.writer.setblocking(False)
  signal.set_wakeup_fd(_Watch.writer.fileno(), warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextlib.contextmanager
def patient(seconds: float | None = TIDY) -> Iterator[None]:
  """Gives what runs inside so long to end once it is interrupted; outside it ends at once.

  Args:
    seconds: None where a handler of its own listens, which is to call `heed`; only a second signal
      ends it at once then.
  """
  before, _Watch.patience = _Watch.patience, seconds
  try:
    yield
  finally:
    _Watch.patience = before


def heed(number: int) -> bool:
  """Notes a signal that a handler of one's own got; returns whether the next one ends the process.

  It does not where signals are not taken: in another program, which uses this package.
  """
  _Watch.caught = _Watch.caught or number
  return _Watch.taken


def terminate() -> None:
  """Sends this process SIGTERM; on Windows the system would end it at once."""
  if sys.platform == 'win32':
    signal.raise_signal(signal.SIGTERM)
  else:
    os.kill(os.getpid(), signal.SIGTERM)


def status(error: KeyboardInterrupt) -> int:
  """Returns the exit status of a process that an interrupt ended: of Ctrl-C, or of its signal."""
  return 128 + (error.args[0] if error.args else signal.SIGINT)


def raised() -> int:
  """Returns the signal that interrupted the main thread, also where that was lost; or 0."""
  return _Watch.raised


def is_first_word() -> bool:
  """Returns whether the interrupt of this process is yet to be said, which happens once."""
  return not _Watch.taken or _Watch.said.acquire(blocking=False)


def end(number: int) -> None:
  """Ends the process, whatever its threads are at, with one line."""
  if is_first_word():
    # Below a progress bar, where there may be one.
    text = b'interrupted\n' if _Watch.patience == 0 else b'\ninterrupted\n'
    with contextlib.suppress(OSError):
      os.write(2, text)
  else:
    time.sleep(0.1)  # another thread, or what this one was at, is about to say it
  os._exit(128 + number)


def _handle(number: int, _: object) -> None:
  if _Watch.patience == 0 or _Watch.caught:
    end(number)
  _Watch.caught = _Watch.raised = number
  # Of those that are lost in a callback Python would print a traceback.
  sys.unraisablehook = lambda _: None
  raise KeyboardInterrupt(number)


def _watch(reader: socket.socket) -> None:
  number = 0
  while number not in SIGNALS:
    number = reader.recv(1)[0]
  select.select([reader], [], [], _Watch.patience)
  end(number)
