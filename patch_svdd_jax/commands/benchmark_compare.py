"""Shows what two machines measured, side by side.

Both files are of the same benchmark and the same settings; what differs is said otherwise.

  patch-svdd benchmark compare here.json there.json
"""

import argparse

from patch_svdd_jax.benchmarking import comparison
from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `benchmark compare`."""
  parser.add_argument('one', type=console.path, metavar='A.json', help='of `benchmark WHAT --json`')
  parser.add_argument('other', type=console.path, metavar='B.json', help='of another machine')
  parser.set_defaults(measure=run)


def run(options: argparse.Namespace) -> int:
  """Reads both, prints."""
  print(*map(one_line, comparison.compare(options.one, options.other).splitlines()), sep='\n')
  return 0
