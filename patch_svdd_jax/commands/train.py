"""Trains an encoder on normal images, then fits the detector: embeds them into memory banks.

The workdir gets config.json, checkpoints/, model/ (the detector), metrics.jsonl and tensorboard/.
The same command on the same workdir goes on from the newest checkpoint, and a run that was stopped
and resumed equals one that never stopped, bit for bit. Ctrl-C or SIGTERM saves and leaves. Where
normal images were added, removed or replaced since, nothing is resumed: --restart begins anew.

With config.data.held_out some normal images choose the checkpoint that the detector is made of;
without, it is the newest.

  python train.py --config configs/mvtec.py:screw --config.data.root=DATA --workdir runs/screw
  python train.py --config configs/folder.py:/data/parts --workdir runs/parts

With all categories (configs/mvtec.py:all, or --config.data.category=all) each that is there is
trained in WORKDIR/CATEGORY and measured, as `eval` does, and WORKDIR gets one table of them,
categories.md, .csv and .json. The same command goes on with what is left. The category `multiclass`
trains one model for all of them.

  python train.py --config configs/mvtec.py:all --config.data.root=DATA --workdir runs/mvtec
"""

import argparse
import operator
from collections.abc import Sequence

import ml_collections

from patch_svdd_jax import config_rules, data
from patch_svdd_jax.commands import console, every_category
from patch_svdd_jax.data import sources
from patch_svdd_jax.experiments import gain_record, region_run
from patch_svdd_jax.experiments.restart import clear_run
from patch_svdd_jax.experiments.training_run import StoppedError, check_resumable, train
from patch_svdd_jax.system.profiling import Profile

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `train`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of this run')
  console.add_restart_argument(parser)
  console.add_distributed_argument(parser)
  console.add_profile_arguments(parser, 'steps')


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Trains, fits, saves."""
  config = config_rules.read(options.config, rest)
  if sources.names_every(config.data):
    console.refuse_profile(options)
    return every_category.train_all(options, rest, config)
  with console.profile(options) as profile:
    return train_one(options, config, profile)


def train_one(
  options: argparse.Namespace, config: ml_collections.ConfigDict, profile: Profile
) -> int:
  """Trains on a single data set."""
  workdir = options.workdir
  if options.restart:
    clear_run(workdir)
  config = check_resumable(config, workdir)
  region_run.check_own(config, workdir)
  dataset = data.load(config.data)
  console.print_data(dataset)
  console.warn_of_duplicates(dataset)
  try:
    detector, reason = train(
      config,
      workdir,
      dataset,
      progress=console.progress,
      calibrated=True,
      profile=profile,
    )
  except StoppedError as stopped:
    print(stopped)
    return stopped.status
  console.print_banks(detector)
  console.print_suspects(detector, dataset.train.names)
  console.print_calibration(detector)
  print(f'the detector is {reason}')
  if gain := gain_record.measure(detector, workdir, dataset, console.progress):
    print(gain.summary())
    if text := gain.warning():
      console.print_warnings([text])
  print(f'{workdir}: {config.train.steps} steps; eval --workdir {workdir} measures it')
  return 0
