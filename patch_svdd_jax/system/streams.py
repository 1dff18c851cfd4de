"""Standard output and standard error that may be closed, full, or left by their reader.

What is printed is lost then; what is computed and written is not, and the exit status tells.
"""

import errno
import io
import os
import select
import sys

# What a pipe says whose reader has left it.
LEFT = errno.EINVAL if sys.platform == 'win32' else errno.EPIPE


class LossyFile(io.RawIOBase):
  """A file descriptor that drops what cannot be written, and remembers why.

  Attributes:
    failure: the error since which all is dropped; None as long as nothing is.
  """

  def __init__(self, descriptor: int):
    self.descriptor = descriptor
    self.failure: OSError | None = None

  def writable(self) -> bool:
    """Returns True: it is written to, and only that."""
    return True

  def fileno(self) -> int:
    """Returns the descriptor, as of which terminals tell their width."""
    return self.descriptor

  def isatty(self) -> bool:
    """Returns whether it is a terminal."""
    return os.isatty(self.descriptor)

  def write(self, data: bytes) -> int:  # type: ignore[override]
    """Writes some of the bytes, or drops them; returns how many."""
    while self.failure is None:
      try:
        return os.write(self.descriptor, data)
      except BlockingIOError:
        select.select([], [self.descriptor], [])
      except OSError as error:
        self.failure = error
    return len(data)


def take(closed: set[int]) -> None:
  """Makes standard output and standard error of this process such that nothing fails by them.

  Args:
    closed: those that were, as of `reserve`.
  """
  for descriptor, name in ((1, 'stdout'), (2, 'stderr')):
    file = LossyFile(descriptor)
    if descriptor in closed:
      file.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
    before = getattr(sys, name)
    if sys.platform == 'win32' and before and before.isatty():
      continue  # its console takes text, and is left by nobody
    stream = io.TextIOWrapper(
      io.BufferedWriter(file),  # type: ignore[type-var]
      encoding=before.encoding if before else None,
      errors=_errors(before),
      line_buffering=descriptor == 2 or file.isatty(),
    )
    setattr(sys, name, stream)


def _errors(before: io.TextIOWrapper | None) -> str:
  if before and before.errors and sys.platform != 'win32':
    return before.errors
  # What is no console gets the code page of Windows, which lacks most characters.
  return 'backslashreplace'


def reserve() -> set[int]:
  """Opens the null device in place of standard files that are closed; returns which ones are.

  The next file that is opened would have the number of one of them, and get all that libraries
  write there.
  """
  closed = set()
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:
      closed.add(descriptor)
      os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
  return closed


def lost_output() -> OSError | None:
  """Returns why some of standard output was lost; None where all of it was written."""
  for stream in (sys.stderr, sys.stdout):
    stream.flush()
  file = getattr(sys.stdout.buffer, 'raw', None)
  return file.failure if isinstance(file, LossyFile) else None
