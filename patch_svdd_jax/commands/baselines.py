"""Fits and measures what Patch SVDD is compared with, and Patch SVDD, on the same data.

Systems: ocsvm_image, ocsvm_patch, svdd_image, svdd_patch (one-class SVM and SVDD on raw pixels, of
images and of patches), deep_svdd (of images), deep_svdd_patch, raw_patch (the nearest raw normal
patch), random_encoder (Patch SVDD's, untrained) and patch_svdd.

Each system gets a folder WORKDIR/SYSTEM: the fitted system, and metrics.json. Those that are
trained are as `train` would have made them: `eval --workdir WORKDIR/patch_svdd` works. WORKDIR gets
baselines.md, .csv, .json and .png. The same command goes on where it was: what was measured is not
measured again, what failed is tried again. The systems of image-wise scores localise nothing: each
of their maps is constant.

  patch-svdd baselines --config laptop:brick --workdir runs/baselines
  patch-svdd baselines --config laptop:brick --workdir runs/baselines --systems deep_svdd raw_patch
"""

import argparse
import operator
import pathlib
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import ml_collections

from patch_svdd_jax import baselines, config_rules, data
from patch_svdd_jax.baselines import comparison
from patch_svdd_jax.commands import console, record_file
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import evaluate
from patch_svdd_jax.experiments.evaluation_run import load_labelled
from patch_svdd_jax.experiments.training_run import StoppedError, check_resumable, train
from patch_svdd_jax.reporting import evaluation_files
from patch_svdd_jax.system import files

FILE, TABLE, SHEET, BARS = 'baselines.json', 'baselines.md', 'baselines.csv', 'baselines.png'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `baselines`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--workdir', required=True, type=console.folder, help='folder of all systems')
  parser.add_argument(
    '--systems', nargs='+', metavar='SYSTEM', help='which ones, as listed above (default: all)'
  )


def choose(names: Sequence[str] | None) -> list[str]:
  """The systems asked for, in the order of the table.

  Raises:
    UserError: there is no such system.
  """
  if names is None:
    return list(baselines.SYSTEMS)
  if unknown := [name for name in names if name not in baselines.SYSTEMS]:
    raise UserError(f'--systems {unknown[0]}: give some of {", ".join(baselines.SYSTEMS)}')
  return [name for name in baselines.SYSTEMS if name in names]


def check(config: ml_collections.ConfigDict, names: Sequence[str], workdir: pathlib.Path) -> None:
  """Refuses what cannot be fitted, before anything is read or written.

  Raises:
    UserError: names the key.
  """
  for name in names:
    if name in baselines.TRAINED:
      own = baselines.TRAINED[name](config)
      config_rules.validate(own)
      check_resumable(own, workdir / name)


def fit(
  name: str,
  config: ml_collections.ConfigDict,
  dataset: data.Dataset,
  workdir: pathlib.Path,
) -> baselines.System:
  """Fits a system and saves it in a workdir of its own.

  Raises:
    StoppedError: training was told to stop.
  """
  if name in baselines.TRAINED:
    detector, _ = train(
      baselines.TRAINED[name](config), workdir, dataset, progress=console.progress
    )
    return detector
  system = baselines.FITTED[name](config, dataset.train.images, console.progress('Fitting'))
  system.save(workdir)
  return system


def complete(
  name: str,
  config: ml_collections.ConfigDict,
  dataset: data.Dataset,
  workdir: pathlib.Path,
  before: float,
) -> tuple[dict[str, Any], int]:
  """Fits, saves and measures one system, and writes its metrics.json.

  Args:
    name: the system's.
    config: the whole config.
    dataset: what all are fitted to and measured on.
    workdir: of this system.
    before: seconds that it was trained already, until told to stop.

  Returns:
    Its entry in the record, and the status with which to leave where it was told to stop, or 0.
  """
  start = time.perf_counter()
  try:
    system = fit(name, config, dataset, workdir)
  except StoppedError as stopped:
    print(stopped)
    return {'fit_seconds': before + time.perf_counter() - start}, stopped.status
  seconds = before + time.perf_counter() - start
  evaluation = evaluate.evaluate(system, dataset.test, console.progress('Scoring'))
  entry = evaluation_files.summary(evaluation, {}) | {'fit_seconds': seconds}
  files.write_json(workdir / 'metrics.json', entry)
  return entry, 0


def one_line(error: Exception) -> str:
  """What to say about an error; of what nobody foresaw, the type too, and where, on stderr."""
  if isinstance(error, UserError):
    return str(error)
  traceback.print_exception(error)
  text = str(error).strip()
  return f'{type(error).__name__}: {text.splitlines()[0] if text else "no message"}'


def write(workdir: pathlib.Path, entries: dict[str, Any]) -> str:
  """Writes the table, the sheet and the bars; returns the table."""
  text = '\n\n'.join([console.table(*comparison.table(entries)), *comparison.errors(entries)])
  files.write(workdir / TABLE, f'{text}\n'.encode())
  files.write(workdir / SHEET, comparison.to_csv(entries).encode())
  files.write(workdir / BARS, comparison.draw(entries, 'png'))
  return text


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Fits, measures, writes."""
  config = config_rules.read(options.config, rest)
  workdir, names = options.workdir, choose(options.systems)
  check(config, names, workdir)
  record = record_file.read(workdir / FILE, config, 'systems', 'baselines')
  pending = [name for name in names if not comparison.finished(record.get(name, {}))]
  dataset = load_labelled(config.data)
  files.check_writable(workdir / FILE)
  for number, name in enumerate(pending, 1):
    print(f'{number} of {len(pending)}: {name}', file=sys.stderr)
    before = record.get(name, {}).get('fit_seconds', 0.0)
    try:
      record[name], stopped = complete(name, config, dataset, workdir / name, before)
    # Hours of other systems are not to be lost by one that fails.
    except Exception as error:  # noqa: BLE001
      record[name], stopped = {'error': one_line(error)}, 0
      print(f'{name} failed: {record[name]["error"]}', file=sys.stderr)
    record = {name: record[name] for name in baselines.SYSTEMS if name in record}
    record_file.write(workdir / FILE, config, {'systems': record})
    if stopped:
      write(workdir, record)
      return stopped
  text = write(workdir, record)
  sys.stderr.flush()
  print(text)
  print(f'\nwritten: {workdir}')
  return int(any('error' in record[name] for name in names))
