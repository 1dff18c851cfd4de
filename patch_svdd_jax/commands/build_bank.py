"""Fits and calibrates the detector of a run: its encoder on the normal images of a data set.

`train` does this at its end. It is done again for other settings of scoring or calibration, for
other normal images of the same parts (a new lamp, a new camera), and for imported weights, which
come without images. The detector that was there is replaced once the new one is whole.

  patch-svdd build-bank --workdir runs/parts --config.score.strides='(8,4)'
  patch-svdd build-bank --workdir runs/authors --config mvtec:screw --config.data.root=DATA
"""

import argparse
import operator
from collections.abc import Sequence

from patch_svdd_jax import data
from patch_svdd_jax.commands import console
from patch_svdd_jax.experiments.evaluation_run import other_data, read_config, restore_encoder
from patch_svdd_jax.experiments.training_run import fit_detector
from patch_svdd_jax.system import distributed
from patch_svdd_jax.training.checkpoints import Checkpoints

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `build-bank`."""
  console.add_config_argument(parser, required=False)
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the run')
  console.add_distributed_argument(parser)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Fits, calibrates, saves."""
  workdir = options.workdir
  config = read_config(options.config, rest, workdir)
  dataset = data.load(config.data)
  console.warn_of_duplicates(dataset)
  if changed := other_data(workdir, dataset):
    print(f'the encoder has learned from other images than these: {changed}')
  distributed.meet()
  with Checkpoints(workdir) as checkpoints:
    step = checkpoints.chosen
    params = restore_encoder(checkpoints, workdir, step)
  detector = fit_detector(
    config, params, workdir, dataset, step=step or 0, progress=console.progress, calibrated=True
  )
  console.print_banks(detector)
  console.print_suspects(detector, dataset.train.names)
  console.print_calibration(detector)
  print(f'written: {workdir}')
  return 0
