"""Runs the command line as on a system without what POSIX has; run by test_other_systems.py.

Other packages are imported before: what they need is theirs.
"""

import contextlib
import ctypes
import fcntl
import importlib
import os
import pkgutil
import signal
import sys
import types

import jax  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import orbax.checkpoint  # noqa: F401
import psutil  # noqa: F401
import skimage.data  # noqa: F401
import tensorflow_datasets  # noqa: F401

MISSING_MODULES = ('fcntl', 'resource', 'termios', 'pwd', 'grp', 'pty', 'tty', 'syslog')
MISSING = {
  os: ('fork', 'getuid', 'geteuid', 'getgid', 'sched_getaffinity', 'mkfifo'),
  signal: ('SIGKILL', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'alarm', 'pthread_kill'),
}


def imitate_windows() -> None:
  """Takes away what Windows lacks, and gives what it has for locks, made of `flock`."""
  flock, exclusive, shared, at_once = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB

  def lock_file_ex(handle, flags, *_):
    try:
      flock(handle.value, (exclusive if flags & 2 else shared) | (at_once if flags & 1 else 0))
    except BlockingIOError:
      return 0
    return 1

  for name in MISSING_MODULES:
    sys.modules[name] = None
  for module, names in MISSING.items():
    for name in names:
      if hasattr(module, name):
        delattr(module, name)
  sys.modules['msvcrt'] = types.SimpleNamespace(get_osfhandle=lambda number: number)
  ctypes.WinDLL = lambda *_, **__: types.SimpleNamespace(LockFileEx=lock_file_ex)
  ctypes.get_last_error = lambda: 33


def import_all() -> None:
  """Imports every module of the package, and makes every command's parser."""
  import patch_svdd_jax
  from patch_svdd_jax import commands

  for module in pkgutil.walk_packages(patch_svdd_jax.__path__, 'patch_svdd_jax.'):
    if not module.name.endswith('__main__'):
      importlib.import_module(module.name)
  for name in commands.COMMANDS:
    with contextlib.suppress(SystemExit):
      commands.main([name, '--help'])


if __name__ == '__main__':
  imitate_windows()
  if sys.argv[1:] == ['import']:
    import_all()
  else:
    from patch_svdd_jax import program

    program.main()
