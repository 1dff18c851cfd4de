"""Says what programs take on TPUs, on a machine that has none.

Each is compiled for each topology, ahead of time, by the TPU's compiler:
`pip install 'patch_svdd_jax[plan]'` brings it. Nothing is run.

  patch-svdd plan search --topology v5e:2x2 v6e:2x2 --bank-rows 1300000
  patch-svdd plan search --topology v5e:16x16 --bank-rows 1000000000 --json plan.json
  patch-svdd plan train --topology v4:2x2x1 v5e:2x2 v5p:2x2x1 v6e:2x2 --config default
  patch-svdd plan train --topology v5e:16x16 --config default --config.train.pairs=crops --largest
  patch-svdd plan train --topology v6e:16x16 tpu7x:4x4x8 --slices 2 --config default
  patch-svdd plan embed --topology v5e:2x2 --config default
"""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from patch_svdd_jax import config_rules
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.search import products, screening
from patch_svdd_jax.system import compiled_memory, files
from patch_svdd_jax.tpu_planning import aot, programs
from patch_svdd_jax.tpu_planning.aot import Collectives, Program
from patch_svdd_jax.training import train_state

# They would be looked for before `run` can say that there are none.
NEEDS_DEVICES = False

# Compilations, after the first, that the search for the largest batch may take.
COMPILATIONS = 4

NOTES = """Memory is of each chip, by the compiled program. "At peak" is the time of the FLOPs at
the published bfloat16 peak, six passes for float32. Utilisation is FLOPs over those of the peak in
the longer of both times: what can be hoped for, not what was measured; none (-) where the compiler
names no time."""
QUICKLY = """The program is compiled quickly: its temporaries are an upper bound. "Compiler" is what
the compiler expects of the whole program; it knows of no passes and no network, counts the body of
each loop once, and for some programs names no time (-)."""

TWO_DEVICES = 'A chip of tpu7x is two devices: figures are of both together.'

# A compiled program, and what else is to be said of it in the JSON file.
Found = tuple[Program, dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the programs and their options."""
  kinds = parser.add_subparsers(metavar='PROGRAM', required=True)
  for name, (purpose, add, plan) in PROGRAMS.items():
    own = kinds.add_parser(
      name,
      help=purpose,
      description=f'Says what {purpose} takes on TPUs, on a machine that has none.',
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    own.set_defaults(plan=plan)
    own.add_argument(
      '--topology',
      nargs='+',
      required=True,
      metavar='NAME',
      help='v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB, tpu7x:AxBxC: the chips along each axis',
    )
    add(functools.partial(own.add_argument, type=int))
    if plan is not plan_search:
      console.add_config_argument(own, required=True)
      own.add_argument(
        '--largest',
        action='store_true',
        help=f'also find the largest batch that fits, with up to {COMPILATIONS} more compilations',
      )
    outputs.add_json_argument(own)


def add_search(add: Callable[..., Any]) -> None:
  """Adds what is searched, each an integer."""
  add('--bank-rows', required=True, metavar='N', help='rows of the memory bank')
  add('--queries', default=3249, metavar='Q', help='default 3249: one image of 256 x 256')
  add('--dim', default=64, metavar='D', help='dimensions, default 64')
  add('--k', default=1, help='nearest rows of each query, default 1')
  add(
    '--components',
    metavar='C',
    help='principal components that the screen keeps, which a bank chooses by its data; default '
    f'as many as fit vectors of {products.MATRIX_UNIT}, or --dim if that is less',
  )


def add_train(add: Callable[..., Any]) -> None:
  """Adds the size of the batch and of the training set."""
  add(
    '--pairs-per-chip',
    default=64,
    metavar='N',
    help='config.train.batch_size on each chip, default 64; crops hold as many pairs as by the '
    'config',
  )
  add('--images', default=320, metavar='N', help='training images, default 320')
  add(
    '--slices',
    default=1,
    metavar='N',
    help='of the topology, joined by the data-centre network; default 1',
  )


def add_embed(add: Callable[..., Any]) -> None:
  """Adds the size of the batch."""
  add(
    '--images-per-chip',
    metavar='N',
    help='embedded at a time on each chip, default config.score.batch_size',
  )


def run(options: argparse.Namespace, *rest: Sequence[str]) -> int:
  """Plans the program that was chosen."""
  # JAX itself must not look for a TPU: it would wait for one.
  jax.config.update('jax_platforms', 'cpu')
  return int(options.plan(options, *rest))


def plan_search(options: argparse.Namespace) -> int:
  """Compiles the search, prints, writes."""
  most = products.MATRIX_UNIT - screening.AROUND_ROUGH
  components = min(most, options.dim) if options.components is None else options.components
  work = programs.Work(options.bank_rows, options.queries, options.dim, options.k, components)
  work.check()

  def compile_for(topology: str) -> Found:
    program = programs.search(topology, work)
    return program, {'sharded': program.each < work.bank_rows}

  found = compile_all(options, compile_for)
  about = [
    (
      f'{work.queries:,} queries (one image) x {work.bank_rows:,} rows x {work.dim} dimensions, '
      f'k = {work.k}; screening vectors of {work.width} bfloat16 ({work.components} components, '
      f'{work.accurate} of them split). '
      f'Blocks of {programs.SIZES.queries:,} queries and {programs.SIZES.rows:,} rows.'
    ),
    (
      f'The screening product takes 2 x queries x rows x {work.width} = {work.flops:.3g} FLOPs an '
      'image, on all chips together; all times are of it alone. "Compiler, without kernel" is what '
      'the compiler expects of it as a plain scan, one turn times the number of turns.'
    ),
    (
      'The passes over single groups are in none of these figures: their number depends on the '
      'data. The compiler names no time for the whole program, nor for the Pallas kernel that it '
      'calls.'
    ),
  ]
  if not all(more['sharded'] for _, more in found):
    about.append('A bank this small is copied to every chip; the queries are sharded.')
  contents = {**work._asdict(), 'width': work.width}
  titles = {'each': 'rows a chip', 'compiler': 'compiler, without kernel'}
  return show(options, found, 'rows_on_chip', about, contents, **titles)


def plan_train(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Compiles the train step, prints, writes."""
  for name in ('images', 'slices'):
    if getattr(options, name) < 1:
      raise UserError(f'--{name} {getattr(options, name)}: give at least 1')
  config = read(options, rest)
  each = flops.step_flops(config) / config.train.batch_size
  work = (
    f'A step takes {each:.3g} FLOPs for each pair of its batch ({config.train.pairs}), forward and '
    f'backward, computed in {config.train.compute}. A batch of N has N position and N neighbour '
    'pairs at each scale.'
  )
  about = [work, between_slices(config)] if options.slices > 1 else [work]
  return plan_batch(
    options,
    config,
    ('pairs_per_chip', options.pairs_per_chip),
    lambda topology, pairs: programs.train(topology, config, pairs, options.images, options.slices),
    about,
  )


def between_slices(config: ml_collections.ConfigDict) -> str:
  """Returns what crosses between slices."""
  parameters = jax.eval_shape(lambda: train_state.init_state(config).params)
  size = sum(4 * leaf.size for leaf in jax.tree.leaves(parameters))
  pairs = ', embeddings and their gradients, as config.train.contrast compares all pairs'
  return (
    '"Between slices" is what each chip hands to the data-centre network: its part of the '
    f"gradients' sum over its slice ({console.megabytes(size)} in all), padded to whole tiles, and "
    f'of a few statistics{pairs if config.train.contrast else ""}. Images and windows stay within '
    'a slice.'
  )


def plan_embed(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Compiles the embedding pass, prints, writes."""
  config = read(options, rest)
  wanted, size = options.images_per_chip, config.data.image_size
  about = (
    f'An image of {size[0]} x {size[1]} pixels takes {flops.image_flops(config):.3g} FLOPs, '
    'computed in float32.'
  )
  return plan_batch(
    options,
    config,
    ('images_per_chip', config.score.batch_size if wanted is None else wanted),
    lambda topology, images: programs.embed(topology, config, images),
    [about],
  )


def read(options: argparse.Namespace, rest: Sequence[str]) -> ml_collections.ConfigDict:
  """Reads the config, of which all is refused that no run can use."""
  config = config_rules.read(options.config, rest)
  image_size.check_given(config.data.image_size)
  return config


def plan_batch(
  options: argparse.Namespace,
  config: ml_collections.ConfigDict,
  batch: tuple[str, int],
  compile_at: Callable[[str, int], Program],
  about: Sequence[str],
) -> int:
  """Compiles a program that works on a batch, prints, writes.

  Args:
    options: of the command.
    config: what is planned.
    batch: what it consists of, and how many of these are on a chip.
    compile_at: compiles the program for a topology and a batch.
    about: what the figures are.
  """
  unit, each = batch
  if each < 1:
    raise UserError(f'--{unit.replace("_", "-")} {each}: give at least 1')

  def compile_for(topology: str) -> Found:
    compile_each = functools.partial(compile_at, topology)
    program = compile_each(each)
    if not options.largest:
      return program, {}
    most, too_many = compiled_memory.largest(
      lambda each: compile_each(each).bytes, each, program.bytes, program.chip_memory, COMPILATIONS
    )
    return program, {'largest': most, 'too_many': too_many}

  found = compile_all(options, compile_for)
  contents = {'config': config.to_dict()}
  return show(options, found, unit, [*about, QUICKLY], contents, each=unit.replace('_', ' '))


def compile_all(options: argparse.Namespace, compile_for: Callable[[str], Found]) -> list[Found]:
  """Compiles for each topology, all of which are checked before, as is the file to be written."""
  topologies = list(dict.fromkeys(options.topology))
  for topology in topologies:
    aot.check_topology(topology)
  if options.json:
    files.check_writable(options.json)
  bar = console.progress('Compiling', unit='topology')
  return [compile_for(topologies[index]) for index in bar(range(len(topologies)))]


def show(
  options: argparse.Namespace,
  found: Sequence[Found],
  unit: str,
  about: Sequence[str],
  contents: dict[str, Any],
  **titles: str,
) -> int:
  """Prints the table and what its figures are; writes them, if asked for.

  Args:
    options: of the command.
    found: the programs.
    unit: what is on each chip, for the JSON file.
    about: what the figures are.
    contents: of the JSON file, beside the programs.
    titles: of the columns of `cells` that are not called by their names.
  """
  rows = [cells(program, more) for program, more in found]
  if not any(program.kernels for program, _ in found):
    for row in rows:
      del row['kernels']
  header = [titles.get(name, name) for name in rows[0]]
  print(markdown(header, [list(row.values()) for row in rows]))
  print(*about, NOTES, sep='\n')
  if any(aot.chip_of(program.topology).devices > 1 for program, _ in found):
    print(TWO_DEVICES)
  written = [{unit: program.each} | program.to_json() | more for program, more in found]
  outputs.write_json(options.json, contents | {'rows': written})
  return 0


def cells(program: Program, more: dict[str, Any]) -> dict[str, str]:
  """Returns a line of the table, by the names of its columns."""
  sizes = ['does not fit', '-', '-', '-']
  if program.memory:
    sizes = [
      *map(console.megabytes, program.memory),
      f'{sum(program.memory) / program.chip_memory:.1%}',
    ]
  line = {'topology': program.topology, 'chips': str(program.chips), 'each': f'{program.each:,}'}
  line |= zip(('arguments', 'temporaries', 'output', 'of memory'), sizes, strict=True)
  line['at peak'] = milliseconds(program.peak_seconds)
  line['compiler'] = milliseconds(program.compiler_seconds)
  line['utilisation'] = f'{program.utilisation:.1%}' if program.utilisation else '-'
  if 'largest' in more:
    too_many = f'{more["too_many"]:,} does not' if more['too_many'] else 'more not tried'
    line['largest that fits'] = f'{more["largest"]:,} ({too_many})'
  line['kernels'] = str(program.kernels) if program.memory else '-'
  if program.slices > 1:
    line['within a slice'] = exchanged(program.collectives)
    line['between slices'] = exchanged(program.between_slices)
  else:
    line['collectives'] = exchanged(program.collectives)
  return line


def exchanged(collectives: Mapping[str, Collectives]) -> str:
  """Returns how often each kind stands in a program, and its bytes; a dash for none."""
  return (
    ', '.join(
      f'{number} {kind} ({console.megabytes(size)})' for kind, (number, size) in collectives.items()
    )
    or '-'
  )


def milliseconds(seconds: float | None) -> str:
  """Returns a time; a dash where there is none."""
  return '-' if seconds is None else f'{seconds * 1e3:.3g} ms'


PROGRAMS = {
  'search': ('the exact search for nearest rows', add_search, plan_search),
  'train': ('the train step', add_train, plan_train),
  'embed': ('the embedding pass', add_embed, plan_embed),
}
