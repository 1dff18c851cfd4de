"""What the train step and the embedding pass take on TPUs, on a machine that has none."""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_collections

from patch_svdd_jax import config_rules
from patch_svdd_jax.commands import console, outputs, plan_tables
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

if TYPE_CHECKING:
  from patch_svdd_jax.tpu_planning.aot import Program

TRAIN = """Says what the train step takes on TPUs, on a machine that has none.

  patch-svdd plan train --topology v4:2x2x1 v5e:2x2 v5p:2x2x1 v6e:2x2 --config default
  patch-svdd plan train --topology v5e:16x16 --config default --config.train.pairs=crops --largest
"""
EMBED = """Says what embedding a batch of images takes on TPUs, on a machine that has none.

  patch-svdd plan embed --topology v4:2x2x1 v5e:2x2 v5p:2x2x1 v6e:2x2 --config default
"""
# Compilations, after the first, that the search for the largest batch may take.
COMPILATIONS = 4

NOTES = """Memory is of each chip, by the program, compiled quickly: its temporaries are an upper
bound. "At peak" is the time of the FLOPs at the published bfloat16 peak, six passes for float32.
"Compiler" is what the compiler expects of the whole program; it knows of no passes and no network,
counts the body of each loop once, and for some programs names no time (-). Utilisation is FLOPs
over those of the peak in the longer of both times: what can be hoped for, not what was measured."""

# (topology, work a chip) to the compiled program
Compile = Callable[[str, int], 'Program']


def add_train(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `plan train`."""
  parser.set_defaults(plan=run_train)
  add_shared(parser)
  parser.add_argument(
    '--pairs-per-chip',
    type=int,
    default=64,
    metavar='N',
    help='config.train.batch_size on each chip, default 64; crops hold as many pairs as by the '
    'config',
  )
  parser.add_argument(
    '--images', type=int, default=320, metavar='N', help='training images, default 320'
  )


def add_embed(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `plan embed`."""
  parser.set_defaults(plan=run_embed)
  add_shared(parser)
  parser.add_argument(
    '--images-per-chip',
    type=int,
    metavar='N',
    help='embedded at a time on each chip, default config.score.batch_size',
  )


def add_shared(parser: argparse.ArgumentParser) -> None:
  """Adds the options of both."""
  plan_tables.add_topology_argument(parser)
  console.add_config_argument(parser, required=True)
  parser.add_argument(
    '--largest',
    action='store_true',
    help=f'also find the largest batch that fits, with up to {COMPILATIONS} more compilations',
  )
  outputs.add_json_argument(parser)


def run_train(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Compiles the train step, prints, writes."""
  from patch_svdd_jax.models import flops
  from patch_svdd_jax.tpu_planning import training_plan

  if options.images < 1:
    raise UserError(f'--images {options.images}: give at least 1')
  config = read(options, rest)

  def compile_for(topology: str, pairs: int) -> 'Program':
    return training_plan.compile_for(topology, config, pairs, options.images)

  each = flops.step_flops(config) / config.train.batch_size
  return show(
    options,
    config,
    'pairs-per-chip',
    options.pairs_per_chip,
    compile_for,
    f'A step takes {each:.3g} FLOPs for each pair of its batch ({config.train.pairs}), forward and '
    f'backward, computed in {config.train.compute}. A batch of N has N position and N neighbour '
    'pairs at each scale.',
  )


def run_embed(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Compiles the embedding pass, prints, writes."""
  from patch_svdd_jax.models import flops
  from patch_svdd_jax.tpu_planning import embedding_plan

  config = read(options, rest)
  wanted = options.images_per_chip
  size = tuple(config.data.image_size)
  each = flops.image_flops(config)

  def compile_for(topology: str, images: int) -> 'Program':
    return embedding_plan.compile_for(topology, config, images)

  return show(
    options,
    config,
    'images-per-chip',
    config.score.batch_size if wanted is None else wanted,
    compile_for,
    f'An image of {size[0]} x {size[1]} pixels takes {each:.3g} FLOPs, computed in float32.',
  )


def read(options: argparse.Namespace, rest: Sequence[str]) -> ml_collections.ConfigDict:
  """The config, of which all is refused that no run can use."""
  config = config_rules.read(options.config, rest)
  image_size.check_given(config.data.image_size)
  return config


def show(
  options: argparse.Namespace,
  config: ml_collections.ConfigDict,
  unit: str,
  each: int,
  compile_for: Compile,
  about: str,
) -> int:
  """Compiles for all topologies, prints, writes.

  Args:
    options: of the command.
    config: what is planned.
    unit: the option by which `each` was given.
    each: pairs or images on a chip.
    compile_for: compiles the program.
    about: what the FLOPs are.
  """
  from patch_svdd_jax.tpu_planning import aot

  if each < 1:
    raise UserError(f'--{unit} {each}: give at least 1')
  topologies = list(dict.fromkeys(options.topology))
  for topology in topologies:
    aot.check_topology(topology)
  if options.json:
    files.check_writable(options.json)
  rows: list[ProgramRow] = []
  bar = console.progress('Compiling', unit='topology')
  for index in bar(range(len(topologies))):
    program = compile_for(topologies[index], each)
    found = None
    if options.largest:
      compile_at = functools.partial(compile_for, topologies[index])
      found = aot.largest(compile_at, program, each, COMPILATIONS)
    rows.append(ProgramRow(program, each, found))
  print(console.table(*table(rows, unit)))
  print(about)
  print(NOTES)
  rows_of_file = [summary(row, unit) for row in rows]
  outputs.write_json(options.json, {'config': config.to_dict(), 'rows': rows_of_file})
  return 0


class ProgramRow(NamedTuple):
  """A line of the table.

  Attributes:
    program: for one topology.
    each: pairs or images on a chip.
    largest: the most that fit and the fewest that do not, of those compiled; None if not asked for.
  """

  program: 'Program'
  each: int
  largest: tuple[int, int | None] | None


def table(rows: Sequence[ProgramRow], unit: str) -> tuple[list[str], list[list[str]]]:
  """The header and the lines of the table."""
  header = ['topology', 'chips', unit.replace('-', ' '), 'arguments', 'temporaries', 'output']
  header += ['of memory', 'at peak', 'compiler', 'utilisation']
  if rows[0].largest:
    header.append('largest that fits')
  lines = []
  for program, each, largest in rows:
    line = [program.topology, str(program.chips), f'{each:,}']
    line += plan_tables.memory_cells(program.memory, program.chip_memory)
    times = (program.peak_seconds, program.compiler_seconds)
    line += [plan_tables.milliseconds(seconds) for seconds in times]
    line.append(f'{program.utilisation:.1%}' if program.memory else '-')
    if largest:
      most, too_many = largest
      line.append(f'{most:,} ({f"{too_many:,} does not" if too_many else "more not tried"})')
    used = [
      f'{number} {kind} ({plan_tables.megabytes(size)})'
      for kind, (number, size) in program.collectives.items()
    ]
    lines.append([*line, ', '.join(used) or '-'])
  return [*header, 'collectives'], lines


def summary(row: ProgramRow, unit: str) -> dict[str, Any]:
  """A line of the table for the JSON file."""
  program = row.program
  contents = {unit.replace('-', '_'): row.each} | dataclasses.asdict(program)
  contents['memory'] = program.memory._asdict() if program.memory else None
  contents['collectives'] = {kind: found._asdict() for kind, found in program.collectives.items()}
  if row.largest:
    contents |= dict(zip(('largest', 'too_many'), row.largest, strict=True))
  return contents
