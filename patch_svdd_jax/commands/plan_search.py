"""What the exact search takes on TPUs, on a machine that has none."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from patch_svdd_jax.commands import console, outputs, plan_tables
from patch_svdd_jax.system import files

if TYPE_CHECKING:
  from patch_svdd_jax.tpu_planning.search_plan import Plan, Work


DESCRIPTION = """Says what the exact search takes on TPUs, on a machine that has none.

  patch-svdd plan search --topology v5e:2x2 v6e:2x2 --bank-rows 1300000
  patch-svdd plan search --topology v5e:16x16 --bank-rows 1000000000 --json plan.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `plan search`."""
  parser.set_defaults(plan=run)
  plan_tables.add_topology_argument(parser)
  parser.add_argument(
    '--bank-rows', type=int, required=True, metavar='N', help='rows of the memory bank'
  )
  parser.add_argument(
    '--queries', type=int, default=3249, metavar='Q', help='default 3249: one image of 256 x 256'
  )
  parser.add_argument('--dim', type=int, default=64, metavar='D', help='dimensions, default 64')
  parser.add_argument('--k', type=int, default=1, help='nearest rows of each query, default 1')
  parser.add_argument(
    '--components',
    type=int,
    metavar='C',
    help='principal components that the screen keeps, which a bank chooses by its data; default '
    '41, or --dim if that is less',
  )
  outputs.add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
  """Compiles, prints, writes."""
  from patch_svdd_jax.tpu_planning import search_plan

  components = min(41, options.dim) if options.components is None else options.components
  work = search_plan.Work(options.bank_rows, options.queries, options.dim, options.k, components)
  for topology in options.topology:
    search_plan.check(topology, work)
  if options.json:
    files.check_writable(options.json)
  topologies = list(dict.fromkeys(options.topology))
  bar = console.progress('Compiling', unit='topology')
  plans = [
    search_plan.compile_for(topologies[index], work) for index in bar(range(len(topologies)))
  ]
  print(console.table(*table(plans)))
  print(notes(work, plans))
  outputs.write_json(options.json, summary(work, plans))
  return 0


def table(plans: Sequence['Plan']) -> tuple[list[str], list[list[str]]]:
  """The header and the lines of the table."""
  header = ['topology', 'chips', 'rows a chip', 'arguments', 'temporaries', 'output', 'of memory']
  header += ['at peak', 'compiler, without kernel', 'kernels', 'collectives']
  lines = []
  for plan in plans:
    line = [plan.topology, str(plan.chips), f'{plan.rows_on_chip:,}']
    line += plan_tables.memory_cells(plan.memory, plan.chip_memory)
    line += [plan_tables.milliseconds(plan.peak_seconds)]
    line.append(plan_tables.milliseconds(plan.compiler_seconds))
    line.append(str(plan.kernels) if plan.memory else '-')
    used = ', '.join(f'{count} {name}' for name, count in plan.collectives.items())
    lines.append([*line, used or '-'])
  return header, lines


def notes(work: 'Work', plans: Sequence['Plan']) -> str:
  """What the figures are."""
  from patch_svdd_jax.tpu_planning.search_plan import SIZES

  lines = [
    f'{work.queries:,} queries (one image) x {work.bank_rows:,} rows x {work.dim} dimensions, '
    f'k = {work.k}; screening vectors of {work.width} bfloat16 ({work.components} components). '
    f'Blocks of {SIZES.queries:,} queries and {SIZES.rows:,} rows.',
    'Memory is of each chip, by the compiled program.',
    f'The screening product takes 2 x queries x rows x {work.width} = {work.flops:.3g} FLOPs an '
    'image, on all chips together. "At peak" is its time at the published bfloat16 peak; '
    '"compiler, without kernel" is what the compiler expects of it as a plain scan, one turn times '
    'the number of turns.',
    'Neither includes the passes over single groups: their number depends on the data, and is in '
    'none of these figures. The compiler names no time for the whole program, nor for the Pallas '
    'kernel that it calls.',
  ]
  if not all(plan.sharded for plan in plans):
    lines.append('A bank this small is copied to every chip; the queries are sharded.')
  return '\n'.join(lines)


def summary(work: 'Work', plans: Sequence['Plan']) -> dict[str, Any]:
  """The contents of the JSON file."""
  rows = []
  for plan in plans:
    memory = plan.memory._asdict() if plan.memory else None
    rows.append({**plan._asdict(), 'memory': memory})
  return {**work._asdict(), 'width': work.width, 'rows': rows}
