r"""Measures all categories of a data set with some seeds: one table, with confidence intervals.

For each category: an encoder trained here (`--train`) with each of the `--seeds`, and of MVTec AD
the weights that the authors trained (`--weights`), beside the paper's figures. The config of
`--train` says which data set: its name without the category. A category without data is listed as
such, one that fails with what is wrong; the others go on, and the exit status is 1.

Each has a folder WORKDIR/CATEGORY/authors, and /trained, /trained_1, ... for the seeds, in which
`eval --workdir` works. WORKDIR gets reproduce.md, .csv, .tex and .json. Ctrl-C or SIGTERM saves and
leaves; the same command resumes, measures nothing twice, and more categories or seeds add to what
is there.

--config.section.key=value holds for all categories: of data and score in both columns, of the other
sections for what is trained.

  patch-svdd reproduce --data DATA --weights checkpoints --workdir runs/reproduce
  patch-svdd reproduce --data DATA --weights checkpoints --train laptop:mvtec \
    --categories screw bottle --workdir runs/small
  patch-svdd reproduce --data VISA --train laptop:dataset:visa --seeds 3 --workdir runs/visa
  patch-svdd reproduce --train laptop:folder:/data/lines --seeds 3 --workdir runs/lines
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
from patch_svdd_jax.data import sources
from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record, evaluation_run, reproduction, runner
from patch_svdd_jax.experiments.restart import clear_experiment
from patch_svdd_jax.experiments.runner import Entry, Job, Record, Rendered
from patch_svdd_jax.experiments.training_run import check_resumable, train
from patch_svdd_jax.system import files

FILE = 'reproduce.json'
# Where the authors' repository has the weights of a category.
WEIGHTS = 'enchier.pkl'

# What one run at a time may write to.
output_folder = operator.attrgetter('workdir')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `reproduce`."""
  parser.add_argument(
    '--data',
    type=console.images,
    metavar='ROOT',
    help="official archive, or the folder that holds the categories (default: the config's)",
  )
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the results')
  parser.add_argument(
    '--categories', nargs='+', metavar='CATEGORY', help='some of the categories (default: all)'
  )
  parser.add_argument(
    '--weights',
    type=console.path,
    metavar='FOLDER',
    help=f"measure the authors' weights on MVTec AD, FOLDER/CATEGORY/{WEIGHTS}",
  )
  parser.add_argument(
    '--train',
    metavar='CONFIG',
    help="train and measure with a config that takes a category: mvtec (the authors' settings), "
    'laptop:mvtec, laptop:dataset:visa, laptop (textures), or a FILE; or folder:ROOT',
  )
  parser.add_argument(
    '--seeds',
    type=console.positive,
    default=1,
    metavar='N',
    help='how many seeds to train each category with, from config.seed on (default: 1)',
  )
  console.add_restart_argument(parser)
  console.take_config_keys(parser)


def data_config(options: argparse.Namespace, rest: Sequence[str]) -> ml_collections.ConfigDict:
  """Returns `config.data` of the data set, which names every category.

  Raises:
    UserError: `--train` is a config of one category alone, or a setting is bad.
  """
  config = read_train(options, rest, EVERY) if options.train else configuration.read('mvtec:all')
  if options.weights and config.data.name != 'mvtec':
    raise UserError(
      f'--weights: the authors trained on MVTec AD, and --train {options.train} is of '
      f'{config.data.name}; leave one out'
    )
  if options.data:
    config.data.root = f'{options.data}'
  data: ml_collections.ConfigDict = configuration.absolute_places(config).data
  return data


def read_train(
  options: argparse.Namespace, rest: Sequence[str], category: str
) -> ml_collections.ConfigDict:
  """Returns the config of `--train` for a category, with the overrides.

  Raises:
    UserError: it is a config of another category, or a setting is bad.
  """
  name = f'{options.train}:{category}'
  config = configuration.override(configuration.read(name), rest)
  if config.data.name == 'folder':  # it takes a folder in a category's place
    config = configuration.override(configuration.read(options.train), rest)
    config.data.category = category
  if config.data.category != category:
    raise UserError(
      f'--train {options.train}: {name} is of {config.data.name}/{config.data.category}; give a '
      'config that takes a category, as mvtec, laptop:mvtec or laptop:dataset:visa'
    )
  return config


def configs_for(
  category: str, options: argparse.Namespace, rest: Sequence[str]
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the configs of a category's runs that were asked for, by name.

  The authors' weights have the authors' settings, but for keys of data and score.

  Raises:
    UserError: a setting is bad.
  """
  configs = {}
  if options.weights:
    own = configs['authors'] = configuration.read(f'mvtec:{category}')
    changed = configuration.override(own.copy_and_resolve_references(), rest)
    own.data.update(changed.data)
    own.score.update(changed.score)
    own.data.update(name='mvtec', category=category)
    config_rules.validate(own, training=False)
  for seed in range(options.seeds if options.train else 0):
    own = configs[reproduction.run_name('trained', seed)] = read_train(options, rest, category)
    own.seed += seed
    config_rules.validate(own)
  if options.data:
    for own in configs.values():
      own.data.root = f'{options.data}'
  return {run: configuration.absolute_places(own) for run, own in configs.items()}


def weights_of(options: argparse.Namespace, job: Job) -> pathlib.Path | None:
  """Returns the authors' file, where a job is to measure it."""
  category, _, run = job.name.rpartition('/')
  return options.weights / category / WEIGHTS if run == 'authors' else None


def plan(
  options: argparse.Namespace, rest: Sequence[str], data: ml_collections.ConfigDict
) -> list[Job]:
  """Returns all that was asked for, first what takes less time, then seed by seed.

  Args:
    options: of the command.
    rest: overrides.
    data: of `data_config`.

  Raises:
    UserError: nothing was, there are no such files, or a setting is bad.
  """
  names = sources.official(data)
  for name in options.categories or ():
    if name not in names:
      raise UserError(f'--categories {name}: no such category; choose of {", ".join(names)}')
  jobs = [
    Job(f'{category}/{run}', config, options.workdir / category / run)
    for category in options.categories or names
    for run, config in configs_for(category, options, rest).items()
  ]
  paths = [path for job in jobs if (path := weights_of(options, job))]
  if paths and not any(path.is_file() for path in paths):
    raise UserError(
      f'--weights {options.weights}: has no {paths[0].parent.name}/{WEIGHTS}, nor others'
    )
  order = {name: place for place, name in enumerate(names)}
  return sorted(
    jobs, key=lambda job: (reproduction.rank(job.workdir.name), order[job.config.data.category])
  )


def ready(
  options: argparse.Namespace,
  jobs: Sequence[Job],
  entries: dict[str, Entry],
  data: ml_collections.ConfigDict,
) -> list[Job]:
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
  held = sources.present(data) if left else []
  names = dict.fromkeys(job.config.data.category for job in jobs)
  if left and not set(held) & set(names):
    raise UserError(
      f'{data.root}: has none of {", ".join(names)}; give the official archive with --data, or the '
      'folder that holds the categories'
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


def can_be_checked(data: ml_collections.ConfigDict) -> list[str]:
  """Returns the categories whose images are there; an archive is not read through for that."""
  if data.root and pathlib.Path(data.root).is_file():
    return sources.official(data)
  try:
    return sources.present(data)
  except UserError:
    return []


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
  entry |= {'status': reproduction.MEASURED, 'map': name, 'step': measured.detector.origin.step}
  entry |= files.to_json(measured.evaluation.maps[name])


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures what is left, writes, prints."""
  if not (options.weights or options.train):
    raise UserError('nothing to measure: give --weights FOLDER, --train CONFIG, or both')
  if options.data and not options.data.exists():
    raise UserError(
      f'--data {options.data}: does not exist; give the official archive of the data set or the '
      'folder that it is extracted to'
    )
  data = data_config(options, rest)
  jobs = plan(options, rest, data)
  if options.restart:
    clear_experiment(options.workdir, FILE, [job.workdir for job in jobs])
  record = Record.read(options.workdir / FILE, 'reproduce', 'configs', 'categories')
  contents = record.contents
  measured = contents.get('data', 'mvtec')
  if contents['configs'] and measured != data.name:
    raise UserError(
      f'{options.workdir} has measured {measured}, not {data.name}: use another --workdir'
    )
  names = sources.official(data)
  # That of the first category and seed stands for all; a folder's may come and go.
  first = EVERY if data.name == 'folder' else names[0]
  for run_name, config in configs_for(first, options, rest).items():
    if run_name in reproduction.COLUMNS:
      record.begin(config, run_name, contents['configs'])
  contents.setdefault('train', '')
  if options.train:
    contents['train'] = ' '.join([options.train, *rest])
  entries = reproduction.flat(contents['categories'])
  there = can_be_checked(data)
  data_record.check_kept(
    options.workdir,
    [(job.config.data, '') for job in jobs if job.config.data.category in there],
  )

  def render() -> Rendered:
    categories = reproduction.by_category(entries, names, data.name)
    contents.pop('means', None)
    contents.update(data=data.name, categories=categories, summary=reproduction.summary(categories))
    return Rendered(
      reproduction.render(categories, contents['train']),
      reproduction.sheet(categories),
      reproduction.to_latex(categories),
    )

  return runner.run(
    record,
    entries,
    ready(options, jobs, entries, data),
    is_measured=lambda *_: False,
    measure=functools.partial(measure, options),
    render=render,
  )
