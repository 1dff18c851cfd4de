"""The memory that this process holds, as its system tells it."""

import pathlib
import re
import sys


def peak() -> int:
  """Returns the most bytes that it has held so far."""
  if sys.platform == 'linux':
    # Not `getrusage`, by which a process that another one starts begins with what that one held.
    status = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
    if found := re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE):
      return int(found[1]) * 1024
  if sys.platform == 'win32':
    import psutil

    return int(psutil.Process().memory_info().peak_wset)
  import resource

  # In KiB, but on macOS in bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
