"""What train and eval do where a config names all categories: each by itself, and one table.

Each category has a workdir of its own, WORKDIR/CATEGORY. WORKDIR gets categories.md, .csv and
.json, which says what was measured with which config.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

import ml_collections

from patch_svdd_jax import config_rules, configuration, data
from patch_svdd_jax.commands import console
from patch_svdd_jax.data import sources
from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.experiments import data_record, runner
from patch_svdd_jax.experiments.evaluation_run import (
  Measured,
  check_complete,
  evaluate_run,
  read_config,
)
from patch_svdd_jax.experiments.restart import clear_experiment
from patch_svdd_jax.experiments.runner import Entry, Job, Record, Rendered
from patch_svdd_jax.experiments.training_run import check_resumable, train
from patch_svdd_jax.reporting import category_table

FILE = 'categories.json'


def of_category(name: str, category: str) -> str:
  """Returns the name FILE[:ARGUMENT] of a config, of one category where its argument names all."""
  before, colon, last = name.rpartition(':')
  return f'{before}:{category}' if colon and last == EVERY else name


def jobs_for(
  name: str, rest: Sequence[str], config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> list[Job]:
  """Returns a job for each category that is there: its config may differ by category.

  Args:
    name: FILE[:ARGUMENT].
    rest: overrides.
    config: what these give, which names all categories.
    workdir: of all categories.
  """
  jobs = []
  for category in sources.present(config.data):
    own = config_rules.read(of_category(name, category), rest)
    own.data.category = category
    jobs.append(Job(category, own, workdir / category))
  return jobs


def go_through(
  record: Record,
  jobs: Sequence[Job],
  is_measured: Callable[[Job, Entry], bool],
  do: Callable[[Job], Measured | None],
) -> int:
  """Does what is left of the categories; without test images one is only trained."""
  entries = record.contents

  def measure(job: Job, entry: Entry) -> None:
    entry.clear()  # of another config
    measured = do(job)
    entry['config'] = job.config.to_dict()
    if measured:
      entry['step'] = measured.detector.origin.step
      entry |= measured.summary()
      data_record.keep_experiment(record.path.parent, job.config.data, measured.dataset)

  def render() -> Rendered:
    record.contents = {job.name: entries[job.name] for job in jobs if job.name in entries}
    return Rendered(*category_table.render(record.contents))

  return runner.run(record, entries, jobs, is_measured=is_measured, measure=measure, render=render)


def train_all(
  options: argparse.Namespace, rest: Sequence[str], config: ml_collections.ConfigDict
) -> int:
  """Trains and measures every category that is there, if it was not with this config."""
  workdir = options.workdir
  jobs = jobs_for(options.config, rest, config, workdir)
  if options.restart:
    clear_experiment(workdir, FILE, [job.workdir for job in jobs])
  for job in jobs:
    check_resumable(job.config, job.workdir)
  data_record.check_kept(workdir, [(job.config.data, '') for job in jobs])
  record = Record.read(workdir / FILE, 'train')
  if others := sources.passed_over(config.data):
    console.print_warnings([others])

  def is_measured(job: Job, entry: Entry) -> bool:
    changed = configuration.differences(record.config(entry.get('config', {})), job.config)
    return 'config' in entry and all(
      line.startswith(configuration.WITHOUT_EFFECT) for line in changed
    )

  def do(job: Job) -> Measured | None:
    config = check_resumable(job.config, job.workdir)
    dataset = data.load(config.data)
    console.print_data(dataset)
    detector, _ = train(config, job.workdir, dataset, progress=console.progress, calibrated=True)
    console.print_suspects(detector, dataset.train.names)
    check_complete(dataset)
    if not len(dataset.test):
      return None
    measured = evaluate_run(
      config, job.workdir, dataset, progress=console.progress, random_encoder=True
    )
    console.print_warnings(measured.warnings)
    return measured

  return go_through(record, jobs, is_measured, do)


def is_of_all(workdir: pathlib.Path) -> bool:
  """Returns whether a workdir holds those of all categories."""
  return (workdir / FILE).exists()


def measured_folders(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folders of a workdir's categories that were measured, by category."""
  entries = Record.read(workdir / FILE, 'train').contents
  return {category: workdir / category for category, entry in entries.items() if 'maps' in entry}


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
  record, jobs = Record.read(workdir / FILE, 'train'), []
  for category in record.contents:
    own = workdir / category
    if (own / configuration.FILE).exists():
      config = read_config(of_category(name, category) if name else None, rest, own)
      config.data.category = category
      jobs.append(Job(category, config, own))
  return go_through(
    record, jobs, lambda *_: False, lambda job: measure_one(job.config, job.workdir)
  )
