"""The process of a command: whatever ends it, from here on, ends it in one line."""

import os
import sys

from patch_svdd_jax.system import signals, streams


def main(*command: str) -> None:
  """Runs a command with this process's arguments, and exits.

  Args:
    command: the first argument, where the program's name says it.
  """
  closed = streams.reserve()
  signals.take()
  streams.take(closed)
  # Imported when signals are taken: it imports much.
  from patch_svdd_jax import commands

  try:
    status = commands.main([*command, *sys.argv[1:]])
  except SystemExit as left:  # of argparse
    status = left.code if isinstance(left.code, int) else 1
  if lost := streams.lost_output():
    status = status or 1
    if lost.errno != streams.LEFT:  # whose reader has seen enough
      print(f'error: standard output was lost: {lost.strerror}', file=sys.stderr)
      sys.stderr.flush()
  if signals.raised():
    os._exit(status)  # Python's own way out stumbles over threads that were left at their work
  sys.exit(status)
