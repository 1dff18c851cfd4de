"""What commands share: config arguments, progress bars, figures."""

import argparse
import contextlib
import functools
import math
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import Dataset, duplicates, mirror
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system import working_copy
from patch_svdd_jax.system.batching import Bar, Progress
from patch_svdd_jax.system.profiling import Profile

# Images that are named as suspicious.
SUSPECTS = 5


def progress(title: str, unit: str = 'batch') -> Progress:
  """Returns a progress bar with speed and time left, around an iterable of batches."""
  return functools.partial(Bar, desc=title, unit=unit)


def take_config_keys(parser: argparse.ArgumentParser) -> None:
  """Lets a command take --config.section.key=value, and lists all keys with their defaults."""
  lines = [f'  --{key}={value!r}' for key, value in configuration.flatten(default.get_config())]
  parser.epilog = '\n'.join(
    ['config keys and their defaults (configs/default.py says what they mean):', *lines]
  )
  parser.set_defaults(takes_config=True)


def add_config_argument(parser: argparse.ArgumentParser, required: bool) -> None:
  """Adds --config, and documents --config.section.key=value."""
  parser.add_argument(
    '--config',
    required=required,
    metavar='FILE[:ARGUMENT]',
    help='config file, or the name of one that comes with the package (default, mvtec, '
    'dataset, folder, textures, laptop); --config.section.key=value then sets a key',
  )
  take_config_keys(parser)


def add_restart_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --restart."""
  parser.add_argument(
    '--restart',
    action='store_true',
    help='remove what an earlier run of this command has left in the workdir, and begin anew: with '
    'other data or another config nothing is resumed',
  )


def add_distributed_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --distributed."""
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='be one of several processes, on one shared --workdir, that run this same command: on a '
    'TPU slice and under Slurm or Open MPI they find each other; elsewhere set '
    'JAX_COORDINATOR_ADDRESS (HOST:PORT of the first one), JAX_NUM_PROCESSES and JAX_PROCESS_ID '
    '(from 0) in each',
  )


def add_profile_arguments(parser: argparse.ArgumentParser, unit: str) -> None:
  """Adds --profile and --profile-steps; `unit` is what a step is, as 'batches of images'."""
  parser.add_argument(
    '--profile',
    type=path,
    metavar='FOLDER',
    help='record a trace of some steps there, for XProf and Perfetto (docs/profiling.md)',
  )
  parser.add_argument(
    '--profile-steps',
    type=steps,
    metavar='A:B',
    help=f'which: after the first A {unit} up to the Bth (default the second to the fifth time '
    'that any are computed)',
  )


def steps(text: str) -> tuple[int, int]:
  """Returns the two numbers of an option, the first below the second."""
  found = re.fullmatch(r'(\d+):(\d+)', text, re.ASCII)
  if not found or int(found[1]) >= int(found[2]):
    raise argparse.ArgumentTypeError(f'{text!r}: give two numbers, the smaller first, as 10:50')
  return int(found[1]), int(found[2])


@contextlib.contextmanager
def profile(options: argparse.Namespace) -> Iterator[Profile]:
  """Gives what records the steps that options ask for, and says at the end where the trace is.

  Raises:
    UserError: the folder cannot be written, or there is none.
  """
  if options.profile_steps and not options.profile:
    raise UserError('--profile-steps says what to record: add --profile FOLDER')
  recorder = Profile(options.profile, options.profile_steps)
  try:
    with recorder:
      yield recorder
  finally:
    if summary := recorder.summary():
      print(f'written: {summary}')


def refuse_profile(options: argparse.Namespace) -> None:
  """Refuses to record several runs at once.

  Raises:
    UserError: it was asked for.
  """
  if options.profile or options.profile_steps:
    raise UserError('--profile records a single run: name one category')


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the false-alarm rates."""
  parser.add_argument(
    '--false-alarm-rate',
    type=float,
    default=0.01,
    metavar='RATE',
    help='share of normal images that may raise an alarm (default 0.01)',
  )
  add_pixel_rate_argument(parser)


def add_pixel_rate_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --pixel-false-alarm-rate."""
  parser.add_argument(
    '--pixel-false-alarm-rate',
    type=float,
    default=0.01,
    metavar='RATE',
    help="share of a normal image's pixels that may be called anomalous (default 0.01)",
  )


def path(text: str) -> pathlib.Path:
  """Returns the path of a file or folder that an option names, as `working_copy.place` does."""
  try:
    return working_copy.place(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def images(text: str) -> pathlib.Path:
  """Returns the path of images that an option names, as `mirror.place` does."""
  try:
    return mirror.place(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
  """Returns the number of an option that must be at least 1."""
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f'{number}: give at least 1')
  return number


def print_banks(detector: Detector) -> None:
  """Prints one line about each memory bank: its size, where it lies, how it is screened."""
  score = detector.config.score
  without = f', without the {score.outliers:.3g} that was most outlying' if score.outliers else ''
  for k, bank in detector.banks.items():
    print(f'K={k}: {memory_bank.bank_summary(bank)}{without}')


def print_suspects(detector: Detector, names: Sequence[str]) -> None:
  """Prints one line about the normal images that most outlying patches came from, by name."""
  if detector.dropped is None:
    return
  first = np.argsort(-detector.dropped, kind='stable')[:SUSPECTS]
  listed = ', '.join(f'{names[index]} ({detector.dropped[index]:.0%})' for index in first)
  print(f'training images with the largest shares of outlying patches, worth a look: {listed}')


def print_calibration(detector: Detector) -> None:
  """Prints one line about the false-alarm rates that can be asked for, with a calibration."""
  if detector.calibration:
    images = detector.calibration.images
    print(f'calibrated by {images} normal images: false-alarm rates from {1 / (images + 1):.2g} up')


def print_warnings(texts: Iterable[str]) -> None:
  """Prints one line about each thing to mind."""
  for text in texts:
    print(f'warning: {text}', file=sys.stderr)


def print_data(dataset: Dataset) -> None:
  """Returns lines about the images, and a few about what is wrong with them or to be minded."""
  if form := dataset.report.form:
    print(one_line(f'{dataset.name}: {form}'))
  if summary := dataset.report.summary():
    print(one_line(f'{dataset.name}: {summary}'))
  print_warnings(dataset.report.lines())


def warn_of_duplicates(dataset: Dataset) -> None:
  """Prints one line where test images are copies of normal ones."""
  if found := duplicates.find(dataset):
    print_warnings([duplicates.warn(found)])


def figure(value: float) -> str:
  """Returns a metric with four digits; a dash for NaN, where it needs both classes."""
  return '-' if math.isnan(value) else f'{value:.4f}'


def aurocs(figures: Mapping[str, float | None] | None) -> str:
  """Returns image and pixel AUROC as '0.822 / 0.959'; a dash where nothing was measured."""
  if figures is None:
    return '-'
  return ' / '.join('-' if value is None else f'{value:.3f}' for value in figures.values())


def megabytes(count: int) -> str:
  """Returns bytes as MB, with decimals where there are few."""
  return f'{count / 1e6:,.0f} MB' if count >= 1e7 else f'{count / 1e6:.2f} MB'
