"""Writes what MVTec's benchmark server asks for of MVTec AD 2: maps of the private test images.

The workdir is one that train made, of a category of mvtec_ad_2, of all (dataset:mvtec_ad_2:all), or
of all as one (multiclass). The images of test_private and test_private_mixed are read below
config.data.root, which must be an extracted download, or below --data.

OUTPUT/submission gets a TIFF of float16 and a thresholded PNG for each image, of the image's own
size, in the server's layout; all are read again and checked. What is above the pixel threshold that
held-out normal images give is anomalous (--pixel-false-alarm-rate); MVTec's baseline, the mean and
three standard deviations of their pixels, is another rule. Categories may come one by one into one
OUTPUT: OUTPUT/submission.tar.gz is packed once all eight are there. A run that was stopped goes on;
a category whose detector, images or rate are others begins anew.

Layout, names, numbers and types are those that MVTec's code for submissions checks. No submission
made here has been uploaded, and no official download has been read: run their
check_and_prepare_data_for_upload.py on OUTPUT/submission before you upload.

  patch-svdd submit --workdir runs/ad2 --output submission
  patch-svdd submit --workdir runs/vial --data mvtec_ad_2 --output submission
"""

import argparse
import functools
import operator
import pathlib
import sys
from collections.abc import Iterator

import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import console, every_category
from patch_svdd_jax.data import mirror, private_splits
from patch_svdd_jax.data.categories import MULTICLASS
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.submission_run import Job, Submission, Written
from patch_svdd_jax.reporting.speed import digits

DATA_SET = 'mvtec_ad_2'
UNCONFIRMED = (
  "not confirmed: nothing made here was uploaded yet; run MVTec's own "
  'check_and_prepare_data_for_upload.py first'
)

# What one run at a time may write to.
output_folder = operator.attrgetter('output')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `submit`."""
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the run')
  parser.add_argument('--output', required=True, type=console.path, help='folder of the results')
  parser.add_argument(
    '--data',
    type=console.images,
    metavar='FOLDER',
    help='that holds the categories, where it is not config.data.root',
  )
  console.add_pixel_rate_argument(parser)


def run(options: argparse.Namespace) -> int:
  """Writes, checks, packs."""
  jobs = list(jobs_of(options.workdir, options.data))
  for job in jobs:
    private_splits.find(job.root, job.category)
  submission = Submission(options.output)
  progress = functools.partial(console.progress, unit='image')
  for job in jobs:
    print_written(submission.add(job, options.pixel_false_alarm_rate, progress))
  if missing := submission.missing():
    print(f'written: {submission.folder}')
    print(f'not packed: the server asks for {", ".join(missing)} too: add them to this --output')
    return 0
  submission.pack(functools.partial(console.progress, unit='file'))
  sys.stderr.flush()
  size = console.megabytes(submission.archive.stat().st_size)
  print(f'written: {submission.archive}, {size}')
  print(UNCONFIRMED)
  return 0


def jobs_of(workdir: pathlib.Path, root: pathlib.Path | None) -> Iterator[Job]:
  """Yields the categories that the detectors of a workdir are for.

  Args:
    workdir: of one run, or of all categories.
    root: the folder that holds the categories; None for config.data.root.

  Raises:
    UserError: a run is of another data set, or its images are not known.
  """
  places = [workdir]
  if every_category.is_of_all(workdir):
    places = [path.parent for path in sorted(workdir.glob(f'*/{configuration.FILE}'))]
  for place in places:
    config = configuration.load(place).data
    if config.name != DATA_SET:
      raise UserError(f'{place} is of {config.name}: only of {DATA_SET} maps are submitted')
    folder = root or root_of(config)
    for category in categories_of(config, folder):
      yield Job(category, place, folder)


def root_of(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Returns the folder of config.data.root.

  Raises:
    UserError: there is none.
  """
  if not config.root:
    raise UserError(
      'config.data.root is not set: give --data, the folder that holds the categories'
    )
  return mirror.place(config.root, mirror.KEY)


def categories_of(config: ml_collections.ConfigDict, root: pathlib.Path) -> list[str]:
  """Returns the category of a run, or all that are there where it is of all as one."""
  if config.category != MULTICLASS:
    return [config.category]
  return [name for name in private_splits.COUNTS if (root / name).is_dir()]


def print_written(written: Written) -> None:
  """Prints what became of a category."""
  limit = written.limit
  print(
    f'{written.category}: {written.images} images, checked; {written.map_name} above '
    f"{digits(limit.value)} is anomalous, as {limit.rate:.2%} of a normal image's pixels are"
  )
