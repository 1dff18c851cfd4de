"""Says of images whether they are anomalous, where, and how sure that is.

Images are files and folders, which are searched to any depth. The output folder gets results.jsonl
and results.csv (score, p-value, verdict, boxes and areas of anomalous regions in pixels of the
file, warnings), masks/ and overlays/ (of images with an alarm, or of all) and report.html.

A score raises an alarm where at most the false-alarm rate of normal images score as high. Images
are read while others are scored, and no more than a few batches are in memory. A file that cannot
be read is listed, and the exit status is then 1. The same command goes on with a run that was
stopped.

  patch-svdd predict --model runs/parts --output found new_parts/
  patch-svdd predict --model runs/parts --output found --false-alarm-rate 0.05 part.png
"""

import argparse
import concurrent.futures
import operator
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from tqdm import tqdm

from patch_svdd_jax.commands import console
from patch_svdd_jax.data import Split, image_size, image_stream
from patch_svdd_jax.data.layout import natural_key
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.inspection import Inspection, Limits
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.reporting import html, prediction_overlays
from patch_svdd_jax.reporting.html import predicted
from patch_svdd_jax.reporting.prediction_overlays import Which
from patch_svdd_jax.reporting.predictions import Failure, Line, Predictions

# What one run at a time may write to.
output_folder = operator.attrgetter('output')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `predict`."""
  parser.add_argument('images', nargs='+', type=console.folder, help='image files, or folders')
  parser.add_argument('--model', required=True, type=console.folder, help='folder of the run')
  parser.add_argument('--output', required=True, type=console.folder, help='folder of the results')
  console.add_rate_arguments(parser)
  parser.add_argument(
    '--pictures',
    choices=('alarms', 'all', 'none'),
    default='alarms',
    help='of which images masks and overlays are written (default alarms)',
  )


class Tally:
  """How many images, alarms and failures there are, and how long the devices worked."""

  def __init__(self) -> None:
    self.images = self.alarms = self.failures = self.scored = 0
    self.busy = 0.0
    self.start = time.perf_counter()

  def add(self, line: Line) -> None:
    """Counts a line of the results."""
    self.images += 1
    if isinstance(line, Failure):
      self.failures += 1
    else:
      self.alarms += bool(line.alarm)

  def speed(self) -> str:
    """Images a second of this call, and the share of its time in which the devices worked."""
    seconds = time.perf_counter() - self.start
    return f'{self.scored / seconds:.3g} images/s, devices busy {self.busy / seconds:.0%}'


def run(options: argparse.Namespace) -> int:
  """Predicts, writes, sums up."""
  sources = image_stream.find(options.images)
  detector = Detector.load(options.model)
  limit = inspection.limits(detector, options.false_alarm_rate, options.pixel_false_alarm_rate)
  for text in limit.warnings:
    print(f'warning: {text}', file=sys.stderr)
  made_with = {
    'model': detector.origin.images,
    'step': detector.origin.step,
    'threshold': limit.image.value,
    'pixel_threshold': limit.pixel.value,
    'pictures': options.pictures,
  }
  tally = Tally()
  colours = prediction_overlays.colour_limits(inspection.calibrated(detector), limit.pixel.value)
  highest = predicted.HighestScores(colours)
  with Predictions(options.output, made_with) as results:
    texts = predict(detector, limit, sources, results, options.pictures, highest, tally)
    warnings = [*limit.warnings, *([distribution_shift.warn(texts)] if texts else [])]
    other_shapes = stretched(detector, results)
    if other_shapes:
      print(f'warning: {other_shapes}', file=sys.stderr)
      warnings.append(other_shapes)
    page = predicted.make(
      results.read(),
      highest,
      sources,
      detector.config,
      title=title(options.images),
      map_name=detector.main_map,
      threshold=limit.image,
      warnings=warnings,
    )
    html.write(options.output / 'report.html', page)
    results.finish()
  print(f'{tally.images} images: {tally.alarms} alarms, {tally.failures} could not be read')
  if tally.scored:
    print(tally.speed())
  print(f'written: {options.output}: report.html, results.jsonl, results.csv')
  return 1 if tally.failures else 0


def stretched(detector: Detector, results: Predictions) -> str | None:
  """What to say of images of another aspect ratio than the normal ones, if there are any."""
  normal = inspection.calibrated(detector).statistics.get(image_size.ASPECT)
  sizes = {line.name: line.size for line in results.read() if isinstance(line, Prediction)}
  if normal is None or not sizes:
    return None
  return image_size.stretch_summary(
    float(np.median(normal)), np.array(list(sizes.values())), list(sizes)
  )


def title(places: Sequence[pathlib.Path]) -> str:
  """What the page of the images of some places is called."""
  return str(places[0]) + (f' and {len(places) - 1} more' if len(places) > 1 else '')


def predict(
  detector: Detector,
  limit: Limits,
  sources: Sequence[image_stream.Source],
  results: Predictions,
  pictures: Which,
  highest: predicted.HighestScores,
  tally: Tally,
) -> list[str]:
  """Scores what has no result yet; pictures are drawn while the next images are scored.

  Returns:
    How images differed last, as a batch, from the normal ones; nothing where they did not.
  """
  latest, done = distribution_shift.Window(inspection.calibrated(detector).statistics), set()
  texts: list[str] = []
  for line in results.read():
    done.add(line.name)
    tally.add(line)
  left = [source for source in sources if source.name not in done]
  drawn: concurrent.futures.Future[None] | None = None
  with (
    concurrent.futures.ThreadPoolExecutor(1) as painter,
    tqdm(total=len(sources), initial=len(done), desc='Predicting', unit='image') as bar,
  ):

    def finish(lines: list[Line]) -> None:
      # A line says that its pictures are there, too.
      if drawn:
        drawn.result()
      results.add(lines)
      for line in lines:
        tally.add(line)
      bar.update(len(lines))
      bar.set_postfix_str(f'{tally.alarms} alarms')

    def draw(split: Split, found: Inspection) -> None:
      prediction_overlays.write(
        results.folder, split, found, limit.pixel.value, highest.limits, pictures
      )
      highest.take(split, found)

    lines: list[Line] = []
    for batch in image_stream.batches(left, batch_size(detector), detector.config.data):
      found = inspect(detector, batch.split, limit, tally) if batch.split else None
      finish(lines)
      lines, drawn = batch_lines(batch, found), None
      if batch.split and found:
        texts = watch(latest, found) or texts
        drawn = painter.submit(draw, batch.split, found)
    finish(lines)
  return texts


def watch(latest: distribution_shift.Window, found: Inspection) -> list[str]:
  """What is new of how the latest images differ from the normal ones, which it says."""
  before = latest.texts
  if not latest.take(found.statistics) or not latest.texts or before:
    return []
  tqdm.write(f'warning: {distribution_shift.warn(latest.texts)}', file=sys.stderr)
  return latest.texts


def batch_lines(batch: image_stream.Batch, found: Inspection | None) -> list[Line]:
  """Returns the lines of a batch, in the order of the files."""
  lines: list[Line] = [Failure(source.name, why) for source, why in batch.failures]
  if batch.split and found:
    lines += found.of_each(batch.split)
  return sorted(lines, key=lambda line: natural_key(line.name))


def batch_size(detector: Detector) -> int:
  """How many images are scored at a time."""
  return int(detector.config.score.batch_size * jax.local_device_count())


def inspect(detector: Detector, split: Split, limit: Limits, tally: Tally) -> Inspection:
  """What is found of a batch."""
  start = time.perf_counter()
  found = inspection.inspect_padded(detector, split, limit, batch_size(detector))
  tally.busy += time.perf_counter() - start
  tally.scored += len(split)
  return found
