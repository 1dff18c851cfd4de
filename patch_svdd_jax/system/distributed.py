"""A run of several processes, each with devices of its own, that compute as one.

Every process runs the same command. They meet through the first one, and must take part in every
exchange: what one does alone, on a signal or an error, the others have to learn, or they wait for
it. Files that are no checkpoints are written, and results printed, by the first process.
"""

import contextlib
import functools
import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import devices, sharding, working_copy
from patch_svdd_jax.system.batching import Bar

# Seconds in which other processes can say themselves what is wrong.
GRACE = 2

ENVIRONMENT = (
  'JAX_COORDINATOR_ADDRESS=HOST:PORT of the first one, JAX_NUM_PROCESSES and JAX_PROCESS_ID, from 0'
)

# What the errors of collectives and of jax's coordination service have in common.
_UNREACHABLE = re.compile('gloo|nccl|unavailable|deadline_exceeded|coordination', re.IGNORECASE)


class ProcessLostError(UserError):
  """Another process has ended, or cannot be reached; what was asked for may well succeed again."""

  status = 75  # EX_TEMPFAIL of sysexits.h


def is_first() -> bool:
  """Returns whether this process is the one that writes files and prints; the only one is."""
  return jax.process_index() == 0


def maximum(value: int) -> int:
  """Returns the largest of the processes' values; each waits until all have given theirs."""
  if jax.process_count() == 1:
    return value
  mesh = sharding.all_devices()
  values = jax.make_array_from_callback(
    (mesh.size,), NamedSharding(mesh, sharding.SHARDED), lambda _: np.full(1, value, np.int32)
  )
  return int(_reduce(NamedSharding(mesh, sharding.REPLICATED))(values))


@functools.cache
def _reduce(replicated: NamedSharding) -> jax.stages.Wrapped:
  return jax.jit(jnp.max, out_shardings=replicated)


def agree(digest: str) -> bool:
  """Returns whether all processes give one hexadecimal digest; each waits for all."""
  value = int(digest[:7], 16)
  return maximum(value) == -maximum(-value)


def meet() -> None:
  """Waits until all processes have come here.

  On CPUs the first exchange of some devices fails if one of them comes 30 seconds after another:
  processes meet where one may have worked for longer, as while it prepared data.
  """
  maximum(0)


def share(folder: pathlib.Path) -> None:
  """Waits until all processes can read what the first one has written to a folder.

  In a working copy it is uploaded now, for which a single process does not wait.
  """
  if jax.process_count() == 1:
    working_copy.wake(folder)
    return
  if is_first():
    working_copy.upload(folder)
  meet()
  if not is_first() and (copy := working_copy.of(folder)):
    copy.fetch()


def together(run: Callable[[], int]) -> int:
  """Calls `run` as one of several processes.

  Returns:
    What `run` returned, when it has returned in all processes.

  Raises:
    UserError: the processes cannot be found, or what `run` raised.
    ProcessLostError: another process ended before this one.
  """
  try:
    _join()
    with contextlib.nullcontext() if is_first() else _quiet():
      status = run()
      meet()
  except (UserError, KeyboardInterrupt):
    raise
  except Exception as error:
    if isinstance(error, jax.errors.JaxRuntimeError) and _UNREACHABLE.search(str(error)):
      reason = str(error).splitlines()[0]
      raise ProcessLostError(
        f'process {jax.process_index()} of {jax.process_count()} has lost another one, which ended '
        f'or cannot be reached ({reason}): run the same command in all processes again, train goes '
        'on from the newest checkpoint there'
      ) from error
    traceback.print_exc()
    return 1
  jax.distributed.shutdown()
  return status


def leave(status: int) -> int:
  """Ends a process that failed at once: Python's own way out would wait for the other processes.

  Returns:
    The status, where this process waits for no other.
  """
  if jax.distributed.is_initialized():
    if status != ProcessLostError.status:
      time.sleep(GRACE)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  return status


def _join() -> None:
  """Finds the other processes, by the environment or by what a TPU slice or a cluster tells."""
  # The address is the one variable that jax reads by itself.
  count, number = _variable('JAX_NUM_PROCESSES'), _variable('JAX_PROCESS_ID')
  # Its handler would take SIGTERM from train, and keep it from doing anything in the other phases.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(num_processes=count, process_id=number)
  except ValueError as error:
    raise UserError(
      f'--distributed finds no other processes ({error}): set {ENVIRONMENT}, in each of them'
    ) from error
  devices.check()
  # While they are together: the devices meet for the first time.
  meet()


def _variable(name: str) -> int | None:
  """Returns the number in an environment variable."""
  text = os.environ.get(name)
  if text and not text.isdigit():
    raise UserError(f'{name}={text}: must be a whole number')
  return int(text) if text else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps from printing and from showing progress; errors are still heard."""
  Bar.hidden = True
  nowhere = pathlib.Path(os.devnull)
  with nowhere.open('w', encoding='utf-8') as file, contextlib.redirect_stdout(file):
    yield
