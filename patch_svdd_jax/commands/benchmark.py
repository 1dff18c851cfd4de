"""Measures this machine, beside other libraries on the same work.

`nearest` is the exact search for nearest rows, `train` the train step at several batch sizes. The
figures can be kept as JSON and as a plot.

  patch-svdd benchmark nearest
  patch-svdd benchmark train --batch 64 256 1024 --json train.json --plot train.png
"""

import argparse
from collections.abc import Sequence

from patch_svdd_jax.commands import benchmark_nearest, benchmark_train

BENCHMARKS = {
  'nearest': ('the exact search for nearest rows', benchmark_nearest),
  'train': ('the train step and the embedding of an image', benchmark_train),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the benchmarks and their options."""
  benchmarks = parser.add_subparsers(metavar='BENCHMARK', required=True)
  for name, (purpose, module) in BENCHMARKS.items():
    module.add_arguments(
      benchmarks.add_parser(
        name,
        help=purpose,
        description=module.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
      )
    )


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Runs the benchmark that was chosen."""
  return options.benchmark(options, rest)
