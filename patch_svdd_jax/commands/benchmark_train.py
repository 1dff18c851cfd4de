"""Times the train step at several batches on several devices.

Strong and weak scaling, how much of the devices' peak is used and, with --largest, the largest
batch that fits: with config.train.accumulate as it is, and in more parts, one after another. The
images are random pixels, which live on the devices as in a run.

On a CPU --devices makes as many of it, each with a thread of its own; without it there is one, with
all cores. What would take too long is left out with a dash and the reason.

  patch-svdd benchmark train --batch 64 256 1024 --seconds 20
  patch-svdd benchmark train --devices 1 2 --batch 64 256 --json train.json --plot train.png
  patch-svdd benchmark train --config.train.compute=bfloat16 --config.train.pairs=crops --largest
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence

import jax
import ml_collections

from patch_svdd_jax import config_rules
from patch_svdd_jax.benchmarking import machine, peaks, record, scaling, scaling_report
from patch_svdd_jax.benchmarking.scaling import Largest, Limits
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import devices, figures, sharding

BATCHES = (64, 256, 1024, 4096, 16384, 65536)
# The largest batch is also looked for in so many times as many parts.
PARTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `benchmark train`."""
  console.add_config_argument(parser, required=False)
  parser.set_defaults(config='default', measure=run)
  parser.add_argument(
    '--batch',
    type=positive,
    nargs='+',
    default=list(BATCHES),
    metavar='B',
    help='config.train.batch_size, on all devices together, default '
    f'{" ".join(map(str, BATCHES))}; and, up to the largest of them, the multiples that have as '
    'many pairs on each device',
  )
  parser.add_argument(
    '--devices',
    type=positive,
    nargs='+',
    metavar='N',
    help='how many to use, default powers of two up to all of them',
  )
  parser.add_argument(
    '--rounds', type=positive, default=5, help='each times every point once, default 5'
  )
  parser.add_argument(
    '--seconds',
    type=positive,
    default=60,
    metavar='S',
    help='that the rounds of a point take, after the first; one of which two steps would take '
    'longer is left out; default 60',
  )
  parser.add_argument(
    '--largest',
    action='store_true',
    help='also find the largest batch that fits on all of these devices, as it is and in '
    f'{PARTS} times as many parts, with up to {scaling.COMPILATIONS} more compilations each',
  )
  outputs.add_arguments(parser, 'scaling and utilisation')


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures, prints, writes."""
  outputs.check(options)
  # Which batches can be divided among the devices, the rows say.
  config = config_rules.read(options.config, rest, training=False)
  image_size.check_given(config.data.image_size)
  if options.devices:
    devices.divide_cpu(max(options.devices))
  devices.check()
  counts = counts_of(options.devices)
  limits = Limits(options.rounds, options.seconds)
  rows = scaling.measure(
    config,
    counts,
    sorted(set(options.batch)),
    limits,
    functools.partial(console.progress, unit='round'),
  )
  largest = find_largest(config, max(counts)) if options.largest else []
  sys.stderr.flush()
  kind = jax.devices()[0].device_kind
  is_published = peaks.published(kind, config.train.compute) is not None
  print(scaling_report.table(rows))
  print(scaling_report.notes(config, rows, largest, limits, is_published))
  device = machine.device_name()
  contents = record.contents(
    'train',
    device,
    config,
    [dataclasses.asdict(row) for row in rows],
    largest=[found._asdict() for found in largest],
    limits=limits._asdict(),
  )
  outputs.write(
    options, contents, lambda suffix: figures.encode(scaling_report.draw(rows, device), suffix)
  )
  return 0


def counts_of(asked: Sequence[int] | None) -> list[int]:
  """Returns the numbers of devices to measure on, ascending.

  Raises:
    UserError: there are not so many.
  """
  there = jax.device_count()
  if not asked:
    powers = [2**power for power in range(there.bit_length()) if 2**power <= there]
    return sorted({*powers, there})
  if max(asked) > there:
    raise UserError(f'--devices {max(asked)}: there are {there}')
  return sorted(set(asked))


def find_largest(config: ml_collections.ConfigDict, count: int) -> list[Largest]:
  """Finds the largest batch on so many devices, in as many parts as by the config and in more."""
  parts = config.train.accumulate
  tries = [parts, PARTS * parts]
  bar = console.progress('largest batch', unit='try')
  mesh = sharding.first_devices(count)
  return [scaling.largest_batch(config, mesh, tries[index]) for index in bar(range(len(tries)))]
