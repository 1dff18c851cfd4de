r"""Measures on MVTec AD what the paper reports, and shows both side by side.

For each category: the weights that the authors trained (`--weights`) and an encoder trained here
(`--train`). A category without data is listed as such, one that fails with what is wrong; the
others go on, and the exit status is 1.

Each has a folder WORKDIR/CATEGORY/authors and WORKDIR/CATEGORY/trained, in which `eval --workdir`
works. WORKDIR gets reproduce.md, .csv and .json. Ctrl-C or SIGTERM saves and leaves; the same
command goes on, measures nothing twice, and more categories add to what is there.

--config.section.key=value holds for all categories: of data and score in both columns, of the other
sections for what is trained.

  patch-svdd reproduce --data DATA --weights checkpoints --workdir runs/reproduce
  patch-svdd reproduce --data DATA --weights checkpoints --train laptop:mvtec \
    --categories screw bottle --workdir runs/small
"""

import argparse
import hashlib
import operator
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.commands import console
from patch_svdd_jax.commands.import_authors import import_weights
from patch_svdd_jax.commands.reproduce_record import FILE, Record, read, render, write
from patch_svdd_jax.data import mvtec
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import paper_results, reproduction
from patch_svdd_jax.experiments.evaluation_run import Measured, evaluate_run, load_labelled
from patch_svdd_jax.experiments.training_run import StoppedError, check_resumable, train
from patch_svdd_jax.system import files

# Where the authors' repository has the weights of a category.
WEIGHTS = 'enchier.pkl'


class Job(NamedTuple):
  """One category in one column: its whole config, its folder, and the authors' file if there is."""

  category: str
  column: str
  config: ml_collections.ConfigDict
  workdir: pathlib.Path
  weights: pathlib.Path


# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `reproduce`."""
  parser.add_argument(
    '--data',
    required=True,
    type=console.folder,
    metavar='ROOT',
    help='archive of MVTec AD, or the folder that holds its categories',
  )
  parser.add_argument('--workdir', required=True, type=console.folder, help='folder of the results')
  parser.add_argument(
    '--categories', nargs='+', metavar='CATEGORY', help='some of the 15 categories (default: all)'
  )
  parser.add_argument(
    '--weights',
    type=console.folder,
    metavar='FOLDER',
    help=f"measure the authors' weights, FOLDER/CATEGORY/{WEIGHTS}",
  )
  parser.add_argument(
    '--train',
    metavar='CONFIG',
    help="train and measure with a config that takes a category: mvtec (the authors' settings), "
    'laptop:mvtec, or a FILE',
  )
  console.take_config_keys(parser)


def chosen(names: Sequence[str] | None) -> list[str]:
  """The categories that were asked for, in the paper's order.

  Raises:
    UserError: there is no such category.
  """
  known = list(paper_results.RESULTS)
  for name in names or ():
    if name not in known:
      raise UserError(f'--categories {name}: no such category; choose of {", ".join(known)}')
  return [name for name in known if names is None or name in names]


def authors_config(category: str, root: str, rest: Sequence[str]) -> ml_collections.ConfigDict:
  """What the authors' weights are measured with: their settings, with keys of data and score."""
  config = configuration.read(f'mvtec:{category}')
  changed = configuration.override(config.copy_and_resolve_references(), rest)
  config.data.update(changed.data)
  config.score.update(changed.score)
  config.data.update(name='mvtec', category=category, root=root)
  config_rules.validate(config, training=False)
  return config


def trained_config(
  name: str, category: str, root: str, rest: Sequence[str]
) -> ml_collections.ConfigDict:
  """What is trained with: `--train` for a category.

  Raises:
    UserError: it is a config of other data, or cannot be trained.
  """
  config = configuration.override(configuration.read(f'{name}:{category}'), rest)
  if (config.data.name, config.data.category) != ('mvtec', category):
    raise UserError(
      f'--train {name}: {name}:{category} is of {config.data.name}/{config.data.category}; give a '
      'config that takes a category of MVTec AD, as mvtec or laptop:mvtec'
    )
  config.data.root = root
  config_rules.validate(config)
  return config


def configs_for(
  category: str, options: argparse.Namespace, rest: Sequence[str]
) -> dict[str, ml_collections.ConfigDict]:
  """The configs of a category in the columns that were asked for."""
  configs, root = {}, str(options.data)
  if options.weights:
    configs['authors'] = authors_config(category, root, rest)
  if options.train:
    configs['trained'] = trained_config(options.train, category, root, rest)
  return configs


def plan(categories: Sequence[str], options: argparse.Namespace, rest: Sequence[str]) -> list[Job]:
  """All that was asked for, first what takes less time.

  Raises:
    UserError: nothing was, there are no such files, or a setting is bad.
  """
  if not (options.weights or options.train):
    raise UserError('nothing to measure: give --weights FOLDER, --train CONFIG, or both')
  if not options.data.exists():
    raise UserError(
      f'--data {options.data}: does not exist; give the archive of MVTec AD ({mvtec.HOMEPAGE}) or '
      'the folder it is extracted to'
    )
  jobs = [
    Job(
      category,
      column,
      config,
      options.workdir / category / column,
      (options.weights or pathlib.Path()) / category / WEIGHTS,
    )
    for category in categories
    for column, config in configs_for(category, options, rest).items()
  ]
  if options.weights and not any(job.weights.is_file() for job in jobs):
    raise UserError(f'--weights {options.weights}: has no {categories[0]}/{WEIGHTS}, nor others')
  return sorted(jobs, key=lambda job: list(reproduction.COLUMNS).index(job.column))


def is_measured(job: Job, record: Record) -> bool:
  """Whether there is nothing left to do."""
  return record.entry(job.category, job.column).get('status') == reproduction.MEASURED


def check_weights(jobs: Sequence[Job], record: Record, workdir: pathlib.Path) -> None:
  """Refuses weights of the authors that are others than those in the workdir.

  Raises:
    UserError: names the file, or a folder that is none of this command.
  """
  for job in jobs:
    if job.column != 'authors':
      continue
    if is_measured(job, record) and job.weights.is_file():
      if record.entry(job.category, job.column)['weights'] != digest(job.weights):
        raise UserError(
          f'{workdir} was measured with other weights than {job.weights}: use another --workdir'
        )
    elif not (workdir / FILE).exists() and job.workdir.exists():
      # What is not measured yet is imported anew, over what is there.
      raise UserError(f'{job.workdir} was made by another command: use another --workdir')


def digest(path: pathlib.Path) -> str:
  """Tells a file from others.

  Raises:
    UserError: it cannot be read.
  """
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error


def figures(measured: Measured) -> dict[str, Any]:
  """The entry of what was measured: of the product of the maps, or of the only one."""
  name = measured.evaluation.main_map
  metrics = measured.evaluation.maps[name]
  entry = {'status': reproduction.MEASURED, 'map': name, 'step': measured.detector.origin.step}
  found: dict[str, Any] = entry | files.to_json(
    {metric: metrics[metric] for metric in reproduction.METRICS}
  )
  return found


def run_authors(job: Job) -> dict[str, Any]:
  """Imports and measures the authors' weights."""
  dataset = load_labelled(job.config.data)
  # What a killed import left, or one of a file that was replaced since.
  shutil.rmtree(job.workdir, ignore_errors=True)
  config = import_weights(job.weights, job.config, job.workdir)
  entry = figures(
    evaluate_run(config, job.workdir, dataset, progress=console.progress, random_encoder=False)
  )
  return entry | {'weights': digest(job.weights)}


def run_trained(job: Job) -> dict[str, Any]:
  """Trains and measures."""
  check_resumable(job.config, job.workdir)
  dataset = load_labelled(job.config.data)
  train(job.config, job.workdir, dataset, progress=console.progress)
  return figures(
    evaluate_run(job.config, job.workdir, dataset, progress=console.progress, random_encoder=False)
  )


def run_job(job: Job) -> dict[str, Any]:
  """The entry of a job, measured or failed.

  Raises:
    StoppedError: training was told to stop.
  """
  try:
    return run_authors(job) if job.column == 'authors' else run_trained(job)
  except UserError as error:
    print(f'{job.category}, {reproduction.COLUMNS[job.column]}: {error}', file=sys.stderr)
    return {'status': reproduction.FAILED, 'error': str(error)}


def pending(
  jobs: Sequence[Job], record: Record, data: pathlib.Path, categories: Sequence[str]
) -> list[Job]:
  """The jobs that are left and have what they need; of the others the record says what lacks.

  Raises:
    UserError: no category has data, or the archive is damaged.
  """
  left = [job for job in jobs if not is_measured(job, record)]
  held = mvtec.Mvtec.present(data) if left else []
  if left and not set(held) & set(categories):
    raise UserError(
      f'--data {data}: has none of {", ".join(categories)}; give the archive of MVTec AD, or the '
      'folder that holds the categories'
    )
  ready = []
  for job in left:
    entries = record.categories.setdefault(job.category, {})
    entries.pop(job.column, None)
    if job.category not in held:
      entries[job.column] = {'status': reproduction.NO_DATA}
    elif job.column == 'authors' and not job.weights.is_file():
      entries[job.column] = {'status': reproduction.NO_WEIGHTS}
    else:
      ready.append(job)
  return ready


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures what is left, writes, prints."""
  workdir = options.workdir
  categories = chosen(options.categories)
  jobs = plan(categories, options, rest)
  given = ' '.join([options.train, *rest]) if options.train else ''
  record = read(workdir, configs_for(next(iter(paper_results.RESULTS)), options, rest), given)
  check_weights(jobs, record, workdir)
  ready = pending(jobs, record, options.data, categories)
  files.check_writable(workdir / FILE)
  write(workdir, record)
  for number, job in enumerate(ready, 1):
    title = f'{job.category}, {reproduction.COLUMNS[job.column]}'
    print(f'{number} of {len(ready)}: {title}', file=sys.stderr)
    try:
      record.categories[job.category][job.column] = run_job(job)
    except StoppedError as stopped:
      print(stopped)
      return stopped.status
    write(workdir, record)
  sys.stderr.flush()
  print(render(record))
  print(f'\nwritten: {workdir}')
  return int(
    any(record.entry(job.category, job.column).get('status') == reproduction.FAILED for job in jobs)
  )
