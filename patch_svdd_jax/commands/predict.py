"""Says of images whether they are anomalous, where, and how sure that is.

Images are files and folders, which are searched to any depth, through links too; what is passed
over is said. The output folder gets results.jsonl and results.csv (score, p-value, verdict, boxes
and areas of anomalous regions in pixels of the upright picture, warnings), masks/ and overlays/ (of
images with an alarm, or of all) and report.html, in place of those of an earlier run.

A score raises an alarm where at most the false-alarm rate of normal images score as high. Images
are read while others are scored, and no more than a few batches are in memory. A file that cannot
be read is listed, and the exit status is then 1. The same command goes on with a run that was
stopped, unless images, model or rates are others: then it says so, and --restart begins afresh.

  patch-svdd predict --model runs/parts --output found new_parts/
  patch-svdd predict --model runs/parts --output found --false-alarm-rate 0.05 part.png
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import operator
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from tqdm import tqdm

from patch_svdd_jax import __version__
from patch_svdd_jax.commands import console
from patch_svdd_jax.data import Split, file_search, image_size, image_stream
from patch_svdd_jax.data.layout import natural_key
from patch_svdd_jax.detection import distribution_shift, inspection
from patch_svdd_jax.detection.detector import Detector, load_identified
from patch_svdd_jax.detection.inspection import Inspection, Limits
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.reporting import html, prediction_overlays, speed
from patch_svdd_jax.reporting.html import predicted
from patch_svdd_jax.reporting.prediction_lines import PAGE, Failure, Line
from patch_svdd_jax.reporting.prediction_overlays import Which
from patch_svdd_jax.reporting.predictions import Predictions
from patch_svdd_jax.system.profiling import Profile

# What one run at a time may write to.
output_folder = operator.attrgetter('output')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `predict`."""
  parser.add_argument('images', nargs='+', type=console.images, help='image files, or folders')
  parser.add_argument('--model', required=True, type=console.path, help='folder of the run')
  parser.add_argument('--output', required=True, type=console.path, help='folder of the results')
  console.add_rate_arguments(parser)
  parser.add_argument(
    '--pictures',
    choices=('alarms', 'all', 'none'),
    default='alarms',
    help='of which images masks and overlays are written (default alarms)',
  )
  parser.add_argument(
    '--restart',
    action='store_true',
    help='begin afresh, whatever a run that was stopped has left',
  )
  console.add_profile_arguments(parser, 'batches of images')


class Tally:
  """How many images, alarms and failures there are, and how fast they were scored.

  Attributes:
    images: of all calls; of those alarms, and failures.
    rate: of this call.
  """

  def __init__(self) -> None:
    self.images = self.alarms = self.failures = 0
    self.rate = speed.Rate()

  def add(self, line: Line) -> None:
    """Counts a line of the results."""
    self.images += 1
    if isinstance(line, Failure):
      self.failures += 1
    else:
      self.alarms += bool(line.alarm)


def run(options: argparse.Namespace) -> int:
  """Predicts, writes, sums up."""
  with console.profile(options) as profile:
    return predict_all(options, profile)


def predict_all(options: argparse.Namespace, profile: Profile) -> int:
  """Does as `run`; some of the batches are recorded."""
  found = file_search.find(options.images)
  sources, passed_over = found
  check_apart(sources, options.output)
  detector, digest = load_identified(options.model)
  limit = inspection.limits(detector, options.false_alarm_rate, options.pixel_false_alarm_rate)
  for text in limit.warnings:
    print(f'warning: {text}', file=sys.stderr)
  print(one_line(found.summary()), file=sys.stderr)
  made_with = {
    'version': __version__,
    'model': digest,
    'false-alarm rate': options.false_alarm_rate,
    'pixel false-alarm rate': options.pixel_false_alarm_rate,
  }
  tally = Tally()
  colours = prediction_overlays.colour_limits(inspection.calibrated(detector), limit.pixel.value)
  highest = predicted.HighestScores(colours)
  with Predictions(
    options.output, made_with, sources, options.pictures, restart=options.restart
  ) as results:
    resumed = bool(results.names)
    texts = predict(detector, limit, sources, results, options.pictures, highest, tally, profile)
    if resumed:
      texts = differences(detector, results)
      redraw(detector, limit, sources, results, highest)
    warnings = [*limit.warnings, *([distribution_shift.warn(texts)] if texts else [])]
    warnings += [passed_over] if passed_over else []
    other_shapes = stretched(detector, results)
    if other_shapes:
      print(f'warning: {other_shapes}', file=sys.stderr)
      warnings.append(other_shapes)
    page = predicted.make(
      results.read(),
      highest,
      detector.config,
      title=title(options.images),
      map_name=detector.main_map,
      threshold=limit.image,
      warnings=warnings,
    )
    html.write(options.output / PAGE, page)
    results.finish()
  print(f'{tally.images} images: {tally.alarms} alarms, {tally.failures} could not be read')
  print(f'written: {options.output}: report.html, results.jsonl, results.csv')
  if speeds := tally.rate.summary():
    print(speeds)
  return 1 if tally.failures else 0


def check_apart(sources: Sequence[file_search.Source], output: pathlib.Path) -> None:
  """Refuses images among the pictures that a run may remove.

  Raises:
    UserError: names one.
  """
  places = {(output / name).resolve() for name in prediction_overlays.PLACES}
  for folder in {source.path.parent for source in sources}:
    if not places.isdisjoint((folder / 'any').resolve().parents):
      raise UserError(f'{folder} has the pictures of {output}: give another --output')


def stretched(detector: Detector, results: Predictions) -> str | None:
  """Returns a warning of images whose aspect ratio is not the normal ones', if there are any."""
  normal = inspection.calibrated(detector).statistics.get(image_size.ASPECT)
  sizes = {line.name: line.size for line in results.read() if isinstance(line, Prediction)}
  if normal is None or not sizes:
    return None
  return image_size.stretch_summary(
    float(np.median(normal)), np.array(list(sizes.values())), list(sizes)
  )


def title(places: Sequence[pathlib.Path]) -> str:
  """Returns the title of the page of the images of some places."""
  return f'{places[0]}' + (f' and {len(places) - 1} more' if len(places) > 1 else '')


def predict(
  detector: Detector,
  limit: Limits,
  sources: Sequence[file_search.Source],
  results: Predictions,
  pictures: Which,
  highest: predicted.HighestScores,
  tally: Tally,
  profile: Profile,
) -> list[str]:
  """Scores what has no result yet; pictures are drawn while the next images are scored.

  Returns:
    How images differed last, as a batch, from the normal ones; nothing where they did not.
  """
  latest = distribution_shift.Window(inspection.calibrated(detector).statistics)
  texts: list[str] = []
  for line in results.read():
    tally.add(line)
  left = [source for source in sources if source.name not in results.names]
  drawn: concurrent.futures.Future[None] | None = None
  with (
    concurrent.futures.ThreadPoolExecutor(1) as painter,
    tqdm(total=len(sources), initial=len(results.names), desc='Predicting', unit='image') as bar,
  ):

    def finish(lines: list[Line], statistics: Mapping[str, Mapping[str, float]]) -> None:
      # A line says that its pictures are there, too.
      if drawn:
        drawn.result()
      results.add(lines, statistics)
      for line in lines:
        tally.add(line)
      bar.update(len(lines))
      bar.set_postfix_str(f'{tally.alarms} alarms')

    def draw(split: Split, found: Inspection) -> None:
      with jax.profiler.TraceAnnotation('draw'):
        prediction_overlays.write(
          results.folder, results.paths, split, found, limit.pixel.value, highest.limits, pictures
        )
        highest.take(split, found)

    lines: list[Line] = []
    statistics: dict[str, dict[str, float]] = {}
    size = inspection.batch_size(detector)
    batches = image_stream.batches(left, size, detector.config.data, detector.region)
    for batch in profile.over('score', batches, -(-len(left) // size)):
      tally.rate.decode(len(batch.failures) + len(batch.split or ()), batch.seconds)
      found = inspect(detector, batch.split, limit, tally) if batch.split else None
      finish(lines, statistics)
      lines, statistics, drawn = batch_lines(batch, found), {}, None
      if batch.split and found:
        statistics = of_each(found.statistics, batch.split.names)
        texts = watch(latest, found) or texts
        drawn = painter.submit(draw, batch.split, found)
    finish(lines, statistics)
  tally.rate.end()
  return texts


def watch(latest: distribution_shift.Window, found: Inspection) -> list[str]:
  """Returns what is new of how the latest images differ from the normal ones, which it says."""
  texts = news(latest, found.statistics)
  if texts:
    tqdm.write(f'warning: {distribution_shift.warn(texts)}', file=sys.stderr)
  return texts


def news(latest: distribution_shift.Window, statistics: distribution_shift.Statistics) -> list[str]:
  """Returns what is new of how the latest images differ, with these."""
  before = latest.texts
  return latest.texts if latest.take(statistics) and not before else []


def of_each(
  statistics: distribution_shift.Statistics, names: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Returns the statistics f[N] of each of N images, by the image's name."""
  return {
    name: {key: float(values[index]) for key, values in statistics.items()}
    for index, name in enumerate(names)
  }


def differences(detector: Detector, results: Predictions) -> list[str]:
  """Returns what `predict` does, of all images, as if the run had never been stopped."""
  latest = distribution_shift.Window(inspection.calibrated(detector).statistics)
  texts: list[str] = []
  lines = results.statistics()
  while batch := list(itertools.islice(lines, inspection.batch_size(detector))):
    readable = [each for each in batch if each]
    if readable:
      found = {key: np.array([each[key] for each in readable], np.float32) for key in readable[0]}
      texts = news(latest, found) or texts
  return texts


def redraw(
  detector: Detector,
  limit: Limits,
  sources: Sequence[file_search.Source],
  results: Predictions,
  highest: predicted.HighestScores,
) -> None:
  """Makes the pictures that the page shows of images that were scored before a stop."""
  missing = {line.name for line in predicted.shown(results.read())} - highest.views.keys()
  left = [source for source in sources if source.name in missing]
  size = inspection.batch_size(detector)
  for batch in image_stream.batches(left, size, detector.config.data, detector.region):
    if batch.split:
      found = inspection.inspect_padded(detector, batch.split, limit, size)
      highest.take(batch.split, found)


def batch_lines(batch: image_stream.Batch, found: Inspection | None) -> list[Line]:
  """Returns the lines of a batch, in the order of the files."""
  lines: list[Line] = [Failure(source.name, why) for source, why in batch.failures]
  if batch.split and found:
    lines += [
      dataclasses.replace(each, digest=digest)
      for each, digest in zip(found.of_each(batch.split), batch.split.digests, strict=True)
    ]
  return sorted(lines, key=lambda line: natural_key(line.name))


def inspect(detector: Detector, split: Split, limit: Limits, tally: Tally) -> Inspection:
  """Scores and judges a batch."""
  found = inspection.inspect_padded(detector, split, limit, inspection.batch_size(detector))
  tally.rate.score(len(split), found.seconds)
  return found
