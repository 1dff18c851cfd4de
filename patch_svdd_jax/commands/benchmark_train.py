"""`benchmark train`: the train step at several batch sizes, and the embedding of an image."""

import argparse
import dataclasses
import functools
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import console, outputs, plan_tables
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import figures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

  from patch_svdd_jax.benchmarks.training import TrainingRow

DESCRIPTION = """The train step at several batch sizes, and the embedding of one image.

Contenders: our step with both kinds of pairs (config.train.pairs) and, where it is installed and
JAX computes on the CPU too, the same step in PyTorch. Ours draws its pairs out of images on the
devices, PyTorch's patches are at hand. They take turns, several rounds long, and medians are
reported.

  patch-svdd benchmark train --batch 64 256 1024 --json train.json --plot train.png
  patch-svdd benchmark train --batch 64 --pairs patches --config.train.steps_per_call=1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `benchmark train`."""
  parser.set_defaults(benchmark=run)
  console.add_config_argument(parser, required=False)
  parser.set_defaults(config='default')
  parser.add_argument(
    '--batch',
    type=int,
    nargs='+',
    default=[64, 256, 1024],
    metavar='B',
    help='config.train.batch_size of each row, default 64, 256 and 1024; crops hold as many pairs '
    'as by the config',
  )
  parser.add_argument(
    '--pairs',
    nargs='+',
    default=['patches', 'crops'],
    metavar='KIND',
    help='values of config.train.pairs, default patches and crops',
  )
  parser.add_argument('--rounds', type=int, default=3, help='each times everyone, default 3')
  outputs.add_arguments(parser, plot='pairs/s and utilisation over the batch')


def check(options: argparse.Namespace) -> None:
  """Refuses options that make no sense, before anything is measured.

  Raises:
    UserError: names the option.
  """
  if options.rounds < 1:
    raise UserError(f'--rounds {options.rounds}: give at least 1')
  for batch in options.batch:
    if batch < 1:
      raise UserError(f'--batch {batch}: give at least 1')
  outputs.check(options)


def has_torch() -> bool:
  """Whether PyTorch takes part; a line on standard error where it does not."""
  import jax

  from patch_svdd_jax.benchmarks import peers

  torch = peers.PEERS['torch']
  if jax.default_backend() != 'cpu':
    print('torch is left out: it would compute on the CPU', file=sys.stderr)
    return False
  if reason := peers.why_missing(torch):
    print(f'torch is left out ({reason}): pip install {torch.install}', file=sys.stderr)
    return False
  return True


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures, prints, writes."""
  check(options)
  config = configuration.override(configuration.read(options.config), rest)
  image_size.check_given(config.data.image_size)
  from patch_svdd_jax.benchmarks import hardware, training

  with_torch = has_torch()
  kinds = list(dict.fromkeys(options.pairs))
  # All of them before the first is measured: one may not suit the config.
  tasks = {
    batch: training.step_contenders(config, batch, kinds, with_torch)
    for batch in sorted(set(options.batch))
  }
  embedding = training.embedding_contenders(config, with_torch)
  products = {name: hardware.large_product(dtype) for name, dtype in hardware.DTYPES.items()}
  measure = functools.partial(training.measure_contenders, products=products, rounds=options.rounds)
  steps: list[TrainingRow] = []
  for batch, contenders in tasks.items():
    progress = console.progress(f'batch {batch:,}', unit='round')
    steps += measure(batch, contenders, progress=progress)
  images = measure(0, embedding, progress=console.progress('embedding', unit='round'))
  sys.stderr.flush()
  device = hardware.device_name()
  print(console.table(*step_table(steps)))
  print(console.table(*image_table(images)))
  print(notes(config, steps + images, device, options.rounds))
  contents = {
    'steps': [dataclasses.asdict(row) for row in steps],
    'embedding': [dataclasses.asdict(row) for row in images],
    'device': device,
    'rounds': options.rounds,
    'config': config.to_dict(),
  }
  outputs.write(options, contents, lambda suffix: figures.encode(draw(steps, device), suffix))
  return 0


def step_table(rows: Sequence['TrainingRow']) -> tuple[list[str], list[list[str]]]:
  """The header and the lines of the train steps."""
  precisions = list(dict.fromkeys(name for row in rows for name in row.peak_share))
  header = ['pairs', 'batch', 'ms a step', 'pairs/s', 'GFLOP by shape', 'by compiler']
  header += [f'of {name} peak' for name in precisions]
  header += ['dispatch', 'program', 'held on device', 'torch took']
  lines = []
  for row in rows:
    line = [row.name, f'{row.batch:,}']
    if row.seconds is None:
      lines.append([*line, 'out of memory', *['-'] * (len(header) - 3)])
      continue
    line += [f'{row.seconds * 1e3:.4g}', f'{row.pairs_per_second:,.0f}']
    line += [giga(row.flops), giga(row.compiler_flops)]
    line += [f'{row.peak_share[name]:.1%}' for name in precisions]
    line += [share(row.dispatch_share), size(row.memory), size(row.device_memory)]
    lines.append([*line, times(row.torch_ratio)])
  return header, lines


def image_table(rows: Sequence['TrainingRow']) -> tuple[list[str], list[list[str]]]:
  """The header and the lines of the embedding."""
  precisions = list(dict.fromkeys(name for row in rows for name in row.peak_share))
  header = ['embedding', 'ms an image', 'GFLOP by shape', 'by compiler']
  header += [*(f'of {name} peak' for name in precisions), 'dispatch', 'program', 'torch took']
  lines = []
  for row in rows:
    if row.seconds is None:
      lines.append([row.name, 'out of memory', *['-'] * (len(header) - 2)])
      continue
    line = [row.name, f'{row.seconds * 1e3:.4g}', giga(row.flops), giga(row.compiler_flops)]
    line += [f'{row.peak_share[name]:.1%}' for name in precisions]
    lines.append([*line, share(row.dispatch_share), size(row.memory), times(row.torch_ratio)])
  return header, lines


def giga(flops: float | None) -> str:
  """Operations in billions."""
  return '-' if flops is None else f'{flops / 1e9:,.4g}'


def share(value: float | None) -> str:
  """A share in per cent."""
  return '-' if value is None else f'{value:.2%}'


def size(count: int | None) -> str:
  """Bytes in MB."""
  return '-' if count is None else plan_tables.megabytes(count)


def times(ratio: float | None) -> str:
  """A ratio of times."""
  return '-' if ratio is None else f'{ratio:.2f} x'


def notes(
  config: ml_collections.ConfigDict, rows: Sequence['TrainingRow'], device: str, rounds: int
) -> str:
  """What the figures are."""
  peaks = {
    name: statistics.median(row.peak_gflops[name] for row in rows if row.peak_gflops)
    for name in next((row.peak_gflops for row in rows if row.peak_gflops), {})
  }
  return '\n'.join(
    [
      f'Medians of {rounds} rounds; {config.train.steps_per_call} steps a call of ours. Pairs are '
      'position and neighbour pairs of all scales.',
      'FLOPs of a step or an image: by the shape of the encoder, and by the compiler, whose count '
      "utilisation is from (the shape's for torch).",
      'Dispatch is the share of a call after which it returned, its work not yet done. Program is '
      'what the compiled program holds on each device, by the compiler.',
      f'{device}; matrix products: '
      + ', '.join(f'{name} {gflops:.4g} GFLOP/s' for name, gflops in peaks.items()),
    ]
  )


def draw(rows: Sequence['TrainingRow'], device: str) -> 'Figure':
  """Pairs/s and utilisation of each contender over the batch."""
  from matplotlib.figure import Figure  # it draws without a screen

  figure = Figure(figsize=(11.5, 4.5), layout='constrained')
  left, right = figure.subplots(1, 2)
  measured = [row for row in rows if row.seconds is not None]
  for name in dict.fromkeys(row.name for row in measured):
    shown = [row for row in measured if row.name == name]
    batches = [row.batch for row in shown]
    left.plot(batches, [row.pairs_per_second for row in shown], marker='o', label=name)
    right.plot(batches, [100 * row.peak_share['f32'] for row in shown], marker='o', label=name)
  left.set(xscale='log', yscale='log', xlabel='batch', ylabel='pairs/s')
  right.set(xscale='log', xlabel='batch', ylabel='% of the float32 product peak', ylim=(0, None))
  for panel in (left, right):
    panel.grid(alpha=0.3)
  figure.legend(*left.get_legend_handles_labels(), loc='outside right upper')
  figure.suptitle(device)
  return figure
