"""Fits and measures what Patch SVDD is compared with, and Patch SVDD, on the same data.

Systems: ocsvm_image, ocsvm_patch, svdd_image, svdd_patch (one-class SVM and SVDD on raw pixels, of
images and of patches), deep_svdd (of images), deep_svdd_patch, raw_patch (the nearest raw normal
patch), thumbnail (the nearest normal patch by the means of its 4 x 4 cells, whitened),
random_encoder (Patch SVDD, untrained) and patch_svdd. Where a scale is no multiple of 4 pixels
there is no thumbnail.

Each system gets a folder WORKDIR/SYSTEM: the fitted system, and metrics.json. Those that are
trained are as `train` would have made them: `eval --workdir WORKDIR/patch_svdd` works. WORKDIR gets
baselines.md, .csv, .json and .png. The same command goes on where it was: what was measured is not
measured again, what failed is tried again. The systems of image-wise scores localise nothing: each
of their maps is constant.

  patch-svdd baselines --config laptop:brick --workdir runs/baselines
  patch-svdd baselines --config laptop:brick --workdir runs/baselines --systems deep_svdd raw_patch
"""

import argparse
import functools
import operator
import pathlib
import time
from collections.abc import Sequence

import ml_collections

from patch_svdd_jax import baselines, config_rules, data
from patch_svdd_jax.baselines import comparison
from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import evaluate
from patch_svdd_jax.experiments import data_record, runner
from patch_svdd_jax.experiments.evaluation_run import load_labelled
from patch_svdd_jax.experiments.restart import clear_experiment
from patch_svdd_jax.experiments.runner import Job, Record, Rendered
from patch_svdd_jax.experiments.training_run import StoppedError, check_resumable, train
from patch_svdd_jax.models import features
from patch_svdd_jax.reporting import evaluation_files
from patch_svdd_jax.system import files
from patch_svdd_jax.system.figures import encode

FILE = 'baselines.json'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `baselines`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of all systems')
  console.add_restart_argument(parser)
  parser.add_argument(
    '--systems', nargs='+', metavar='SYSTEM', help='which ones, as listed above (default: all)'
  )


def plan(
  names: Sequence[str], config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> list[Job]:
  """Returns a job for each system that is asked for, in the order of the table.

  Raises:
    UserError: there is no such system, or a setting that it cannot be fitted with.
  """
  if unknown := [name for name in names if name not in baselines.SYSTEMS]:
    raise UserError(f'--systems {unknown[0]}: give some of {", ".join(baselines.SYSTEMS)}')
  if baselines.THUMBNAIL in names:
    features.check(features.thumbnails_alone(config))
  jobs = []
  for name in baselines.SYSTEMS:
    if name in names:
      own = baselines.TRAINED[name](config) if name in baselines.TRAINED else config
      jobs.append(Job(name, own, workdir / name))
      if name in baselines.TRAINED:
        config_rules.validate(own)
        check_resumable(own, workdir / name)
  return jobs


def fit(job: Job, dataset: data.Dataset) -> baselines.System:
  """Fits a system and saves it in a workdir of its own.

  Raises:
    StoppedError: training was told to stop.
  """
  if job.name in baselines.TRAINED:
    return train(job.config, job.workdir, dataset, progress=console.progress)[0]
  fit_system, normal = baselines.FITTED[job.name], dataset.train
  config = data.resolved(job.config, dataset)
  system = fit_system(config, normal.images, console.progress('Fitting'), normal.regions)
  system.save(job.workdir)
  return system


def measure(dataset: data.Dataset, job: Job, entry: runner.Entry) -> None:
  """Fits, saves and measures one system, and writes its metrics.json.

  The entry has the seconds that it was trained for before it was told to stop, if it was.
  """
  start = time.perf_counter() - entry.pop('fit_seconds', 0.0)
  try:
    system = fit(job, dataset)
  except StoppedError:
    entry['fit_seconds'] = time.perf_counter() - start
    raise
  seconds = time.perf_counter() - start
  evaluation = evaluate.evaluate(system, dataset.test, console.progress('Scoring'))
  entry |= evaluation_files.summary(dataset.test, evaluation, {}) | {'fit_seconds': seconds}
  files.write_json(job.workdir / 'metrics.json', entry)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Fits, measures, writes."""
  config = config_rules.read(options.config, rest)
  workdir = options.workdir
  systems = options.systems or baselines.possible(config)
  if options.restart:
    clear_experiment(workdir, FILE, [workdir / name for name in systems])
  jobs = plan(systems, config, workdir)
  record = Record.read(workdir / FILE, 'baselines', 'config', 'systems')
  record.begin(config)
  entries = record.contents['systems']
  dataset = load_labelled(config.data)
  data_record.begin_experiment(workdir, config.data, dataset)

  def render() -> Rendered:
    known = {name: entries[name] for name in baselines.SYSTEMS if name in entries}
    record.contents['systems'] = known
    return Rendered(*comparison.render(known))

  status = runner.run(
    record,
    entries,
    jobs,
    is_measured=lambda _, entry: 'maps' in entry,
    measure=functools.partial(measure, dataset),
    render=render,
    failures=(Exception,),
  )
  bars = comparison.draw(record.contents['systems'])
  files.write(workdir / 'baselines.png', encode(bars, 'png'))
  return status
