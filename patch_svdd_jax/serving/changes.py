"""Changes of a served detector: one at a time, and none beside another command on its run."""

import contextlib
import pathlib
import threading
from collections.abc import Iterator

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import working_copy


class BusyError(Exception):
  """The detector is being changed already."""


class Changes:
  """Who may change the detector of a run."""

  def __init__(self, workdir: pathlib.Path):
    self._workdir, self._lock = workdir, threading.Lock()

  @contextlib.contextmanager
  def alone(self) -> Iterator[None]:
    """Keeps all others from changing it.

    Raises:
      BusyError: it is being changed.
    """
    if not self._lock.acquire(blocking=False):
      raise BusyError('the detector is being changed: try again in a while')
    try:
      with contextlib.ExitStack() as kept:
        try:
          kept.enter_context(working_copy.locked(self._workdir))
        except UserError as error:
          raise BusyError(str(error)) from error
        yield
    finally:
      self._lock.release()
