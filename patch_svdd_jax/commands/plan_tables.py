"""What the plans of all programs share: the topologies asked for, and how figures are shown."""

import argparse

from patch_svdd_jax.system.compiled_memory import Memory


def add_topology_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --topology."""
  parser.add_argument(
    '--topology',
    nargs='+',
    required=True,
    metavar='NAME',
    help='v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB: the chips along each axis',
  )


def megabytes(count: int) -> str:
  """Bytes as MB, with decimals where there are few."""
  return f'{count / 1e6:,.0f} MB' if count >= 1e7 else f'{count / 1e6:.2f} MB'


def memory_cells(memory: Memory | None, there: int) -> list[str]:
  """Arguments, temporaries and output, and their share of the bytes that a chip has."""
  if memory is None:
    return ['does not fit', '-', '-', '-']
  return [*map(megabytes, memory), f'{sum(memory) / there:.1%}']


def milliseconds(seconds: float | None) -> str:
  """A time; a dash where there is none."""
  return '-' if seconds is None else f'{seconds * 1e3:.3g} ms'
