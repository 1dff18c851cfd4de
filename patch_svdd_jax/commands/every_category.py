"""What train and eval do where a config names all categories: each by itself, and one table.

Each category has a workdir of its own, WORKDIR/CATEGORY. WORKDIR gets categories.md, .csv and
.json, which says what was measured with which config.
"""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.commands import console
from patch_svdd_jax.data import sources
from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.evaluation_run import Measured, evaluate_run, read_config
from patch_svdd_jax.experiments.training_run import StoppedError, check_resumable, train
from patch_svdd_jax.reporting import category_table, evaluation_files
from patch_svdd_jax.system import distributed, files

FILE, TABLE, SHEET = 'categories.json', 'categories.md', 'categories.csv'

Entry = dict[str, Any]


class Job(NamedTuple):
  """A category, its whole config, and its own workdir."""

  category: str
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


def of_category(name: str, category: str) -> str:
  """The name FILE[:ARGUMENT] of a config, of one category where its argument names all."""
  before, colon, last = name.rpartition(':')
  return f'{before}:{category}' if colon and last == EVERY else name


def configs_for(
  name: str, rest: Sequence[str], config: ml_collections.ConfigDict
) -> dict[str, ml_collections.ConfigDict]:
  """The config of each category that is there: the named one's, which may differ by category.

  Args:
    name: FILE[:ARGUMENT].
    rest: overrides.
    config: what these give, which names all categories.
  """
  configs = {}
  for category in sources.present(config.data):
    own = config_rules.read(of_category(name, category), rest)
    own.data.category = category
    configs[category] = own
  return configs


def read(workdir: pathlib.Path) -> dict[str, Entry]:
  """What was measured so far, by category.

  Raises:
    UserError: the file is none of ours.
  """
  path = workdir / FILE
  try:
    found = json.loads(path.read_text()) if path.exists() else {}
    return {str(name): dict(entry) for name, entry in found.items()}
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise UserError(f'{path} is no file of train: use another --workdir') from error


def is_measured(job: Job, entry: Entry) -> bool:
  """Whether there is nothing left to do: it was measured, with this config."""
  if 'config' not in entry or 'error' in entry:
    return False
  before = configuration.from_json(json.dumps(entry['config']), str(job.workdir.parent / FILE))
  changed = configuration.differences(before, job.config)
  return all(line.startswith(configuration.WITHOUT_EFFECT) for line in changed)


def entry_of(job: Job, measured: Measured | None) -> Entry:
  """What is kept of a category; without test images only that it was trained."""
  figures: Entry = {'config': job.config.to_dict()}
  if measured:
    figures |= {'step': measured.detector.origin.step}
    figures |= evaluation_files.summary(measured.evaluation, measured.others, measured.rows)
  return figures


def write(workdir: pathlib.Path, entries: dict[str, Entry]) -> str:
  """Writes the record, the table and the sheet; returns the table."""
  shown = category_table.table(category_table.figures(entries), category_table.untrained(entries))
  text = '\n\n'.join([console.table(*shown), *category_table.notes(entries)])
  if distributed.is_first():
    files.write_json(workdir / FILE, entries)
    # A name on disk need not be UTF-8.
    files.write(workdir / TABLE, f'{text}\n'.encode(errors='backslashreplace'))
    files.write(workdir / SHEET, category_table.to_csv(entries).encode(errors='backslashreplace'))
  return text


def go_through(
  jobs: Sequence[Job],
  left: Sequence[Job],
  workdir: pathlib.Path,
  do: Callable[[Job], Measured | None],
) -> int:
  """Does what is left of the categories, writes after each, prints the table; gives the status."""
  known = read(workdir)
  entries = {job.category: known[job.category] for job in jobs if job.category in known}
  for number, job in enumerate(left, 1):
    print(f'{number} of {len(left)}: {job.category}', file=sys.stderr)
    try:
      with files.locked(job.workdir) if distributed.is_first() else contextlib.nullcontext():
        entries[job.category] = entry_of(job, do(job))
    except StoppedError as stopped:
      print(stopped)
      return stopped.status
    # Hours of other categories are not to be lost by one that fails.
    except UserError as error:
      print(f'{job.category} failed: {error}', file=sys.stderr)
      entries[job.category] = {'error': str(error)}
    entries = {job.category: entries[job.category] for job in jobs if job.category in entries}
    write(workdir, entries)
  sys.stderr.flush()
  print(write(workdir, entries))
  print(f'\nwritten: {workdir}: {FILE}, {TABLE}, {SHEET}, and a folder for each category')
  return int(any('error' in entry for entry in entries.values()))


def train_all(
  options: argparse.Namespace, rest: Sequence[str], config: ml_collections.ConfigDict
) -> int:
  """Trains and measures every category that is there; what was done is not done again."""
  configs = configs_for(options.config, rest, config)
  jobs = [Job(name, own, options.workdir / name) for name, own in configs.items()]
  for job in jobs:
    check_resumable(job.config, job.workdir)
  known = read(options.workdir)
  left = [job for job in jobs if not is_measured(job, known.get(job.category, {}))]

  def do(job: Job) -> Measured | None:
    dataset = data.load(job.config.data)
    console.warn_of_duplicates(dataset)
    detector, _ = train(
      job.config, job.workdir, dataset, progress=console.progress, calibrated=True
    )
    console.print_suspects(detector, dataset.train.names)
    if not len(dataset.test):
      return None
    return evaluate_run(
      job.config, job.workdir, dataset, progress=console.progress, random_encoder=True
    )

  return go_through(jobs, left, options.workdir, do)


def is_of_all(workdir: pathlib.Path) -> bool:
  """Whether a workdir holds those of all categories."""
  return (workdir / FILE).exists()


def measure_all(
  name: str | None,
  rest: Sequence[str],
  workdir: pathlib.Path,
  measure_one: Callable[[ml_collections.ConfigDict, pathlib.Path], Measured],
) -> int:
  """Measures every category of a workdir anew.

  Args:
    name: FILE[:ARGUMENT], or None for the config that each was trained with.
    rest: overrides.
    workdir: of all categories.
    measure_one: measures a workdir of one category, with a config.
  """
  jobs = []
  for category in read(workdir):
    own = workdir / category
    if (own / configuration.FILE).exists():
      config = read_config(of_category(name, category) if name else None, rest, own)
      config.data.category = category
      jobs.append(Job(category, config, own))
  return go_through(jobs, jobs, workdir, lambda job: measure_one(job.config, job.workdir))
