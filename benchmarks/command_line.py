"""What the benchmarks' command lines share."""

import argparse

from patch_svdd_jax.commands import outputs
from patch_svdd_jax.commands.console import positive


def make_parser(
  name: str, description: str | None, rounds: int, plot: str
) -> argparse.ArgumentParser:
  """Returns the parser of the options that all benchmarks have; `plot` says what theirs shows."""
  parser = argparse.ArgumentParser(
    f'python -m benchmarks.{name}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--rounds', type=positive, default=rounds, help=f'each times everyone, default {rounds}'
  )
  outputs.add_arguments(parser, plot)
  return parser
