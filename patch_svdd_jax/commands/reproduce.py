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
import functools
import hashlib
import operator
import pathlib
import shutil
from collections.abc import Sequence

import ml_collections

from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.commands import console
from patch_svdd_jax.commands.import_authors import import_weights
from patch_svdd_jax.data import mvtec
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record, evaluation_run, reproduction, runner
from patch_svdd_jax.experiments.paper_results import RESULTS
from patch_svdd_jax.experiments.restart import clear_experiment
from patch_svdd_jax.experiments.runner import Entry, Job, Record
from patch_svdd_jax.experiments.training_run import check_resumable, train
from patch_svdd_jax.reporting.table import Table

FILE = 'reproduce.json'
# Where the authors' repository has the weights of a category.
WEIGHTS = 'enchier.pkl'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `reproduce`."""
  parser.add_argument(
    '--data',
    required=True,
    type=console.images,
    metavar='ROOT',
    help='archive of MVTec AD, or the folder that holds its categories',
  )
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the results')
  parser.add_argument(
    '--categories', nargs='+', metavar='CATEGORY', help='some of the 15 categories (default: all)'
  )
  parser.add_argument(
    '--weights',
    type=console.path,
    metavar='FOLDER',
    help=f"measure the authors' weights, FOLDER/CATEGORY/{WEIGHTS}",
  )
  parser.add_argument(
    '--train',
    metavar='CONFIG',
    help="train and measure with a config that takes a category: mvtec (the authors' settings), "
    'laptop:mvtec, or a FILE',
  )
  console.add_restart_argument(parser)
  console.take_config_keys(parser)


def configs_for(
  category: str, options: argparse.Namespace, rest: Sequence[str]
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the configs of a category in the columns that were asked for.

  The authors' weights have the authors' settings, but for keys of data and score.

  Raises:
    UserError: `--train` is a config of other data, or a setting is bad.
  """
  configs, name = {}, f'{options.train}:{category}'
  if options.weights:
    own = configs['authors'] = configuration.read(f'mvtec:{category}')
    changed = configuration.override(own.copy_and_resolve_references(), rest)
    own.data.update(changed.data)
    own.score.update(changed.score)
    own.data.update(name='mvtec', category=category)
    config_rules.validate(own, training=False)
  if options.train:
    own = configs['trained'] = configuration.override(configuration.read(name), rest)
    if (own.data.name, own.data.category) != ('mvtec', category):
      raise UserError(
        f'--train {options.train}: {name} is of {own.data.name}/{own.data.category}; give a config '
        'that takes a category of MVTec AD, as mvtec or laptop:mvtec'
      )
    config_rules.validate(own)
  for own in configs.values():
    own.data.root = f'{options.data}'
  return {column: configuration.absolute_places(own) for column, own in configs.items()}


def weights_of(options: argparse.Namespace, job: Job) -> pathlib.Path | None:
  """Returns the authors' file, where a job is to measure it."""
  category, column = job.name.split('/')
  return options.weights / category / WEIGHTS if column == 'authors' else None


def plan(options: argparse.Namespace, rest: Sequence[str]) -> list[Job]:
  """Returns all that was asked for, in the paper's order, first what takes less time.

  Raises:
    UserError: nothing was, there are no such files, or a setting is bad.
  """
  for name in options.categories or ():
    if name not in RESULTS:
      raise UserError(f'--categories {name}: no such category; choose of {", ".join(RESULTS)}')
  if not (options.weights or options.train):
    raise UserError('nothing to measure: give --weights FOLDER, --train CONFIG, or both')
  if not options.data.exists():
    raise UserError(
      f'--data {options.data}: does not exist; give the archive of MVTec AD ({mvtec.HOMEPAGE}) or '
      'the folder it is extracted to'
    )
  jobs = [
    Job(f'{category}/{column}', config, options.workdir / category / column)
    for category in RESULTS
    if category in (options.categories or RESULTS)
    for column, config in configs_for(category, options, rest).items()
  ]
  paths = [path for job in jobs if (path := weights_of(options, job))]
  if paths and not any(path.is_file() for path in paths):
    raise UserError(
      f'--weights {options.weights}: has no {paths[0].parent.name}/{WEIGHTS}, nor others'
    )
  return sorted(jobs, key=lambda job: job.workdir.name)  # authors, trained


def ready(options: argparse.Namespace, jobs: Sequence[Job], entries: dict[str, Entry]) -> list[Job]:
  """Returns the jobs that are left and have what they need; entries of others say what lacks.

  Raises:
    UserError: a folder is of another command, the weights are others than those that were measured,
      no category has data, or the archive is damaged.
  """
  left = []
  for job in jobs:
    weights, entry = weights_of(options, job), entries.get(job.name, {})
    if entry.get('status') != reproduction.MEASURED:
      left.append(job)
      # What is not measured yet is imported anew, over what is there.
      if weights and job.workdir.exists() and not (options.workdir / FILE).exists():
        raise UserError(f'{job.workdir} was made by another command: use another --workdir')
    elif weights and weights.is_file() and entry['weights'] != digest(weights):
      raise UserError(
        f'{options.workdir} was measured with other weights than {weights}: use another --workdir'
      )
  held = mvtec.Mvtec.present(options.data) if left else []
  names = dict.fromkeys(job.config.data.category for job in jobs)
  if left and not set(held) & set(names):
    raise UserError(
      f'--data {options.data}: has none of {", ".join(names)}; give the archive of MVTec AD, or '
      'the folder that holds the categories'
    )
  for job in left:
    weights, entries[job.name] = weights_of(options, job), {}
    if job.config.data.category not in held:
      entries[job.name] = {'status': reproduction.NO_DATA}
    elif weights and not weights.is_file():
      entries[job.name] = {'status': reproduction.NO_WEIGHTS}
  return [job for job in left if not entries[job.name]]


def digest(path: pathlib.Path) -> str:
  """Tells a file from others.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return hashlib.sha256(path.read_bytes()).hexdigest()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error


def is_there(root: pathlib.Path, category: str) -> bool:
  """Returns whether a folder holds a category; what an archive holds is not looked up."""
  return root.is_file() or (root / category).is_dir()


def measure(options: argparse.Namespace, job: Job, entry: Entry) -> None:
  """Imports the authors' weights, or trains; then measures the product of the maps."""
  entry.clear()
  config, weights = job.config, weights_of(options, job)
  dataset = evaluation_run.load_labelled(config.data)
  data_record.begin_experiment(options.workdir, config.data, dataset)
  if weights:
    # What a killed import left, or one of a file that was replaced since.
    shutil.rmtree(job.workdir, ignore_errors=True)
    config = import_weights(weights, config, job.workdir)
    entry['weights'] = digest(weights)
  else:
    config = check_resumable(config, job.workdir)
    train(config, job.workdir, dataset, progress=console.progress)
  measured = evaluation_run.evaluate_run(
    config, job.workdir, dataset, progress=console.progress, random_encoder=False
  )
  name = measured.evaluation.main_map
  metrics = measured.evaluation.maps[name]
  entry |= {'status': reproduction.MEASURED, 'map': name, 'step': measured.detector.origin.step}
  entry |= {metric: metrics[metric] for metric in reproduction.METRICS}


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures what is left, writes, prints."""
  jobs = plan(options, rest)
  if options.restart:
    clear_experiment(options.workdir, FILE, [job.workdir for job in jobs])
  record = Record.read(options.workdir / FILE, 'reproduce', 'configs', 'categories')
  # That of the first category stands for all.
  for column, config in configs_for(next(iter(RESULTS)), options, rest).items():
    record.begin(config, column, record.contents['configs'])
  record.contents.setdefault('train', '')
  if options.train:
    record.contents['train'] = ' '.join([options.train, *rest])
  entries = reproduction.flat(record.contents['categories'])
  data_record.check_kept(
    options.workdir,
    [(job.config.data, '') for job in jobs if is_there(options.data, job.config.data.category)],
  )

  def render() -> tuple[str, Table]:
    categories = reproduction.beside_paper(entries)
    record.contents |= {'categories': categories, 'means': reproduction.means(categories)}
    return reproduction.render(categories, record.contents['train']), reproduction.sheet(categories)

  return runner.run(
    record,
    entries,
    ready(options, jobs, entries),
    is_measured=lambda *_: False,
    measure=functools.partial(measure, options),
    render=render,
  )
