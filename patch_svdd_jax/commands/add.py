"""Adds good images to a detector without training it again.

Their patches enter the memory banks, which are then bit for bit those of all images together, and
the detector is calibrated anew: thresholds and p-values move, by how much is said. It is written as
a new version; --undo goes back to the one before. The encoder stays as it is: for another kind of
part, or another camera, train anew.

The images are copied to additions/ in the folder of the run. `train` and `build-bank` make the
detector without them; then they are added again as the last command does.

  patch-svdd add --model runs/parts new_good/
  patch-svdd add --model runs/parts --undo
  patch-svdd add --model runs/parts runs/parts/additions
"""

import argparse
import operator
import sys

from patch_svdd_jax.commands import console
from patch_svdd_jax.data import file_search
from patch_svdd_jax.detection.additions import Moved, evidence_of
from patch_svdd_jax.detection.detector import load_identified, versions
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.experiments import additions_run

# What one run at a time may write to.
output_folder = operator.attrgetter('model')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `add`."""
  parser.add_argument('images', nargs='*', type=console.images, help='image files, or folders')
  parser.add_argument('--model', required=True, type=console.path, help='folder of the run')
  parser.add_argument(
    '--undo',
    nargs='?',
    type=int,
    const=1,
    metavar='N',
    help='go back to the version before, or N versions back',
  )
  parser.add_argument(
    '--false-alarm-rate',
    type=float,
    default=0.01,
    metavar='RATE',
    help='whose threshold is compared before and after (default 0.01)',
  )


def run(options: argparse.Namespace) -> int:
  """Adds, or goes back."""
  if options.undo is not None:
    return undo(options)
  if not options.images:
    raise UserError('no images: name files or folders, or --undo')
  found = file_search.find(options.images)
  print(one_line(found.summary()), file=sys.stderr)
  detector, _ = load_identified(options.model)
  evidence_of(detector)
  images = additions_run.read(found.sources, detector)
  chosen = additions_run.new(images, detector)
  if len(chosen) < len(images):
    print(f'{len(images) - len(chosen)} of {len(images)} images were added before')
  if not chosen:
    print('nothing is new')
    return 0
  _, moved = additions_run.add(options.model, detector, chosen, options.false_alarm_rate)
  suspects = [image.name for image, alarm in zip(chosen, moved.alarms, strict=True) if alarm]
  if suspects:
    shown = ', '.join(suspects[:3]) + (', ...' if len(suspects) > 3 else '')
    print(
      f'warning: {len(suspects)} of {len(chosen)} images scored as anomalous before: {shown}; '
      'were they defective, --undo takes them out',
      file=sys.stderr,
    )
  for line in lines(moved, options.false_alarm_rate):
    print(line)
  number = versions(options.model)[-1]
  print(f'written: {options.model}: version {number} of the detector (--undo goes back)')
  return 0


def lines(moved: Moved, rate: float) -> list[str]:
  """Returns what was added and what that has moved."""
  count = len(moved.scores)
  before, after = moved.threshold
  scores = f'{moved.scores.min():.4g} to {moved.scores.max():.4g}'
  unsure = '' if after.ensured else f' (for {after.rate:.2g}, all that so few images can ensure)'
  return [
    f'added: {count}, scores {scores}, least p-value {moved.p_values.min():.2g}',
    f'images that calibrate: {moved.images[0]} -> {moved.images[1]}',
    f'median of their scores: {moved.median[0]:.4g} -> {moved.median[1]:.4g}',
    f'threshold at a false-alarm rate of {rate:g}: {before.value:.4g} -> {after.value:.4g}{unsure}',
  ]


def undo(options: argparse.Namespace) -> int:
  """Goes back to an earlier version."""
  if options.images:
    raise UserError(f'--undo takes no images: {options.images[0]}')
  if options.undo < 1:
    raise UserError(f'--undo {options.undo}: give at least 1')
  number, images = additions_run.undo(options.model, options.undo)
  without = f', without {images} of the images that were added' if images else ''
  print(f'{options.model}: back to version {number} of the detector{without}')
  return 0
