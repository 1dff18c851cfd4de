"""The train step at several batch sizes, and the embedding of one image.

Contenders: our step with both kinds of pairs (config.train.pairs) and, where it is installed and
JAX computes on the CPU too, the same step in PyTorch. Ours draws its pairs out of images on the
devices, PyTorch's patches are at hand. They take turns, several rounds long, and medians are
reported.

  python -m benchmarks.train --batch 64 256 1024 --json train.json --plot train.png
  python -m benchmarks.train --batch 64 --pairs patches --config.train.steps_per_call=1
"""

import argparse
import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

import jax
import ml_collections
import numpy as np
from matplotlib.figure import Figure  # it draws without a screen

from benchmarks import command_line, contenders, peers
from benchmarks.contenders import TORCH, Contenders
from patch_svdd_jax import commands, config_rules
from patch_svdd_jax.benchmarking import hardware, machine, timing
from patch_svdd_jax.benchmarking.hardware import Product
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.data import image_size
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.system import figures, sharding
from patch_svdd_jax.system.batching import Progress


@dataclasses.dataclass(frozen=True)
class TrainingRow:
  """What was measured of one contender.

  Attributes:
    name: 'patches' or 'crops', the pairs of ours; 'torch'; of an embedding 'patch_svdd_jax'.
    batch: `config.train.batch_size`; 0 for an embedding.
    seconds: of a step or an image, the median; None where memory did not suffice.
    pairs_per_second: position and neighbour pairs of all scales.
    flops: of a step or an image, by the encoder's shape.
    compiler_flops: as the compiler counts them.
    peak_share: of `peak_gflops`, by the compiler's count where there is one.
    peak_gflops: of large matrix products in the same rounds, by precision.
    torch_ratio: how many times as long PyTorch took; None where it takes no part.
    dispatch_share: of a call's time, until it returned; the host is idle for the rest.
    memory: bytes that the program holds on each device.
    device_memory: the most that any device has held since the start; None if it does not say.
  """

  name: str
  batch: int
  seconds: float | None
  pairs_per_second: float | None
  flops: float | None
  compiler_flops: float | None
  peak_share: dict[str, float]
  peak_gflops: dict[str, float]
  torch_ratio: float | None
  dispatch_share: float | None
  memory: int | None
  device_memory: int | None


def held_on_device() -> int | None:
  """Returns the most bytes that any local device has held; None where they do not say."""
  statistics = [device.memory_stats() or {} for device in jax.local_devices()]
  held = [values['peak_bytes_in_use'] for values in statistics if 'peak_bytes_in_use' in values]
  return max(held, default=None)


def measure_contenders(
  batch: int,
  taking_part: Contenders,
  products: Mapping[str, Product],
  rounds: int,
  progress: Progress = iter,
) -> list[TrainingRow]:
  """Times contenders in turn.

  Args:
    batch: for the rows.
    taking_part: by name; each is prepared by a call.
    products: large matrix products, by name of the precision; they take turns too.
    rounds: each times everyone once.
    progress: wraps the rounds.
  """
  prepared = contenders.prepare_all(taking_part)
  ready = {name: found for name, found in prepared.items() if found}
  calls: dict[str, Callable[[], object]] = {name: found.call for name, found in ready.items()}
  calls |= {f'{name} product': product.multiply for name, product in products.items()}
  taken = timing.interleave(calls, progress(range(rounds)))
  held = held_on_device()
  peaks = {name: product.flop / taken[f'{name} product'] for name, product in products.items()}
  rows = []
  for name, found in prepared.items():
    if not found:
      rows.append(TrainingRow(name, batch, None, None, None, None, {}, {}, None, None, None, held))
      continue
    seconds = taken[name] / found.steps
    speed = (found.compiler_flops or found.flops) / seconds
    ratio = None
    if name != TORCH and (torch := ready.get(TORCH)):
      ratio = float(np.median(taken[TORCH] / torch.steps / seconds))
    dispatched = np.array(found.dispatched)
    rows.append(
      TrainingRow(
        name=name,
        batch=batch,
        seconds=float(np.median(seconds)),
        pairs_per_second=float(np.median(found.pairs / seconds)) if found.pairs else None,
        flops=found.flops,
        compiler_flops=found.compiler_flops,
        peak_share={name: float(np.median(speed / peak)) for name, peak in peaks.items()},
        peak_gflops={name: float(np.median(peak)) / 1e9 for name, peak in peaks.items()},
        torch_ratio=ratio,
        dispatch_share=float(np.median(dispatched / taken[name])) if len(dispatched) else None,
        memory=found.memory,
        device_memory=held,
      )
    )
  return rows


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the options."""
  parser = command_line.make_parser(
    'train', __doc__, rounds=3, plot='pairs/s and utilisation over the batch'
  )
  console.add_config_argument(parser, required=False)
  parser.set_defaults(config='default')
  parser.add_argument(
    '--batch',
    type=positive,
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
  return parser


def torch_takes_part() -> bool:
  """Returns whether PyTorch takes part; a line on standard error where it does not."""
  if jax.default_backend() != 'cpu':
    print('torch is left out: it would compute on the CPU', file=sys.stderr)
    return False
  return peers.takes_part(TORCH)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures, prints, writes."""
  outputs.check(options)
  config = config_rules.read(options.config, rest)
  image_size.check_given(config.data.image_size)
  with_torch = torch_takes_part()
  kinds = list(dict.fromkeys(options.pairs))
  # All of them before the first is measured: one may not suit the config.
  tasks = {
    batch: contenders.step_contenders(config, batch, kinds, with_torch)
    for batch in sorted(set(options.batch))
  }
  embedding = contenders.embedding_contenders(config, with_torch)
  products = {
    name: hardware.large_product(dtype, sharding.local_mesh())
    for name, dtype in hardware.DTYPES.items()
  }
  time_all = functools.partial(measure_contenders, products=products, rounds=options.rounds)
  steps: list[TrainingRow] = []
  for batch, taking_part in tasks.items():
    progress = console.progress(f'batch {batch:,}', unit='round')
    steps += time_all(batch, taking_part, progress=progress)
  images = time_all(0, embedding, progress=console.progress('embedding', unit='round'))
  sys.stderr.flush()
  device = machine.device_name()
  print(markdown(*step_table(steps)))
  print(markdown(*image_table(images)))
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


def step_table(rows: Sequence[TrainingRow]) -> tuple[list[str], list[list[str]]]:
  """Returns the header and the lines of the train steps."""
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


def image_table(rows: Sequence[TrainingRow]) -> tuple[list[str], list[list[str]]]:
  """Returns the header and the lines of the embedding."""
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
  """Returns operations in billions."""
  return '-' if flops is None else f'{flops / 1e9:,.4g}'


def share(value: float | None) -> str:
  """Returns a share in per cent."""
  return '-' if value is None else f'{value:.2%}'


def size(count: int | None) -> str:
  """Returns bytes in MB."""
  return '-' if count is None else console.megabytes(count)


def times(ratio: float | None) -> str:
  """Returns a ratio of times."""
  return '-' if ratio is None else f'{ratio:.2f} x'


def notes(
  config: ml_collections.ConfigDict, rows: Sequence[TrainingRow], device: str, rounds: int
) -> str:
  """Explains the figures."""
  peaks = {
    name: statistics.median(row.peak_gflops[name] for row in rows if row.peak_gflops)
    for name in next((row.peak_gflops for row in rows if row.peak_gflops), {})
  }
  return '\n'.join(
    [
      (
        f'Medians of {rounds} rounds; {config.train.steps_per_call} steps a call of ours. Pairs '
        'are position and neighbour pairs of all scales.'
      ),
      (
        'FLOPs of a step or an image: by the shape of the encoder, and by the compiler, whose '
        "count utilisation is from (the shape's for torch)."
      ),
      (
        'Dispatch is the share of a call after which it returned, its work not yet done. Program '
        'is what the compiled program holds on each device, by the compiler.'
      ),
      f'{device}; matrix products: '
      + ', '.join(f'{name} {gflops:.4g} GFLOP/s' for name, gflops in peaks.items()),
    ]
  )


def draw(rows: Sequence[TrainingRow], device: str) -> Figure:
  """Plots pairs/s and utilisation of each contender over the batch."""
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


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns the exit status."""
  options, overrides = make_parser().parse_known_args(argv)
  return commands.answer(functools.partial(run, options, overrides))


if __name__ == '__main__':
  sys.exit(main())
