"""The devices that jax has: none where it was asked for others, or in a process that was forked."""

import os

import jax
import jax.extend.backend

from patch_svdd_jax.errors import UserError

# By which users ask jax for a platform.
VARIABLES = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME')


# By which each device of a CPU computes with one thread, its own.
ONE_THREAD = '--xla_cpu_multi_thread_eigen=false'


class _Use:
  """The process in which jax was used first; None before."""

  process: int | None = None


def check() -> None:
  """Refuses to begin where jax has no devices, or would wait for threads that a fork left behind.

  Raises:
    UserError: says what was asked for and what there is, or that the process was forked.
  """
  if _Use.process is None:
    try:
      jax.devices()
    # Whatever a plugin may raise.
    except Exception as error:
      raise UserError(no_devices(error)) from error
    _Use.process = os.getpid()
  if _Use.process != os.getpid():
    raise UserError(
      f'this process was forked from process {_Use.process} after jax had started threads there, '
      "without which it waits forever: start it by multiprocessing.get_context('spawn')"
    )


def divide_cpu(count: int) -> None:
  """Makes so many devices of the CPU, with a thread each, in a process where jax has none yet."""
  try:
    jax.config.update('jax_num_cpu_devices', count)
  except RuntimeError:  # jax has devices: they are what there is
    return
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {ONE_THREAD}'.lstrip()


def no_devices(error: Exception) -> str:
  """Returns what to say where jax has no devices because of an error."""
  lines = str(error).splitlines()
  reason = f' ({lines[0].partition(" (set ")[0]})' if lines else ''
  asked = [name for name in VARIABLES if os.environ.get(name)]
  if not asked:
    return f'jax cannot use the devices of this machine{reason}: JAX_PLATFORMS=cpu does without'
  values = ', '.join(f'{name}={os.environ[name]}' for name in asked)
  return (
    f'{values}: jax finds no such device here{reason}, but {" and ".join(platforms())}: unset '
    f'{" and ".join(asked)}, or install jax for it, as by '
    "pip install 'patch_svdd_jax[cuda]', or [tpu]"
  )


def platforms() -> list[str]:
  """Returns what jax finds where nobody asks for a platform; it finds it anew the next time."""
  asked = {name: jax.config.values[name] for name in ('jax_platforms', 'jax_platform_name')}
  for name in asked:
    jax.config.update(name, None)
  jax.extend.backend.clear_backends()
  try:
    return sorted(jax.extend.backend.backends())
  finally:
    for name, value in asked.items():
      jax.config.update(name, value)
    jax.extend.backend.clear_backends()
