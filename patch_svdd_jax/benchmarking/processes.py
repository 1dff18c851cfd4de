"""Processes that work when they are asked: each has its own memory, programs and peak."""

import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tqdm import tqdm

from patch_svdd_jax.errors import UserError


class Worker:
  """A process that starts anew, calls functions, and ends with the `with` block.

  What `keep` makes stays there, and is the first argument of the functions after it.
  """

  def __init__(self) -> None:
    """Starts it."""
    spawn = multiprocessing.get_context('spawn')
    self._connection, theirs = spawn.Pipe()
    self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    self._process.start()
    theirs.close()

  def keep(self, make: Callable[..., Any], *arguments: Any) -> None:
    """Keeps what a function returns; errors as of `ask`."""
    self._call(True, make, arguments)

  def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function returns there.

    Raises:
      UserError: the function raised it, or its process ended.
      RuntimeError: it raised something else; has its traceback.
    """
    return self._call(False, function, arguments)

  def _call(self, keep: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
      self._connection.send((keep, function, arguments))
      result, error = self._connection.recv()
    except (EOFError, OSError) as lost:
      self._process.join()
      raise UserError(
        f'a process of the benchmark ended by itself (status {self._process.exitcode}): perhaps '
        'there is not enough memory'
      ) from lost
    if error:
      raise error
    return result

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._process.kill()
    self._process.join()
    self._connection.close()


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
  """Returns what a function returns in a process that ends with it; errors as of `Worker.ask`."""
  with Worker() as worker:
    return worker.ask(function, *arguments)


def _serve(connection: Connection) -> None:
  """Calls what it is asked to until nobody asks any more."""
  # The process that asks decides what an interrupt ends.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Standard output is for what the command prints.
  os.dup2(2, 1)
  # Its own is a semaphore of the system, which a process that is killed leaves behind.
  tqdm.set_lock(threading.RLock())
  kept: tuple[Any, ...] = ()
  while True:
    try:
      keep, function, arguments = connection.recv()
      result, error = _attempt(functools.partial(function, *kept, *arguments))
      if keep:
        kept, result = (result,), None
      connection.send((result, error))
    except (EOFError, OSError):
      return


def _attempt(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
  try:
    return call(), None
  except UserError as error:
    return None, error
  except Exception as error:  # noqa: BLE001, raised there; it may be one that cannot be sent
    return None, RuntimeError(''.join(traceback.format_exception(error)))
