"""Compares measured runs with the first one: figures side by side, and tests on pairs of images.

A run is a folder that `eval` has measured, one of all categories (train --config
configs/mvtec.py:all), or that of a system of `baselines`. All must have been measured on the same
test images; settings, training and sizes of images may differ.

Figures are those of the main map, with the difference to the first run. Whether it may be chance
which images are in the test set is told by an interval of the difference of the image AUROC
(bootstrap), and by Wilcoxon signed-rank tests over the images, of their AUPIMO and of the ranks of
their scores.

--output gets compare.md, .csv, .json, .png, and .html, one page that shows it all.

  patch-svdd compare runs/screw runs/screw-deeper --output runs/deeper
"""

import argparse
import pathlib

from patch_svdd_jax.commands import console, every_category
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.reporting import (
  comparison_files,
  comparison_tables,
  measured_run,
  run_comparison,
)
from patch_svdd_jax.reporting.measured_run import ALONE, MeasuredRun
from patch_svdd_jax.system import files

# It only reads and draws.
NEEDS_DEVICES = False
UNREAD = ('checkpoints', 'model', 'tensorboard')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `compare`."""
  parser.add_argument(
    'workdirs', nargs='+', type=console.path, metavar='RUN', help='folders of runs'
  )
  parser.add_argument('--output', type=console.path, metavar='FOLDER', help='folder of the files')
  parser.add_argument(
    '--resamples',
    type=console.positive,
    default=2000,
    metavar='NUMBER',
    help='samples of the test images that the intervals come from (default 2000)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, metavar='SEED', help='of these samples (default 0)'
  )


def read(workdir: pathlib.Path) -> MeasuredRun:
  """Returns what was measured of a run, or of all its categories."""
  folders = {ALONE: workdir}
  if every_category.is_of_all(workdir):
    folders = every_category.measured_folders(workdir)
  return measured_run.read(workdir, folders)


def run(options: argparse.Namespace) -> int:
  """Reads, compares, prints, writes."""
  if len(options.workdirs) < 2:
    raise UserError('name two runs or more: the first is what the others are compared with')
  if options.output:
    files.check_writable(options.output / comparison_files.NAMES[0])
  comparison = run_comparison.compare(
    [read(workdir) for workdir in options.workdirs], options.resamples, options.seed
  )
  print(*map(one_line, comparison_tables.render(comparison).splitlines()), sep='\n')
  if options.output:
    comparison_files.write(options.output, comparison)
    print(f'\nwritten: {options.output}: {", ".join(comparison_files.NAMES)}')
  return 0
