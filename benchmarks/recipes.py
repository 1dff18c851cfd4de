r"""Which recipe of training and scoring finds defects on sets that had no say in choosing it.

Recipes x scorings x sets x seeds are trained, scored and measured, one after another; runs of one
training train once. What is trained is beside the same scorings of an untrained encoder, and beside
thumbnails, raw patches, and local contrast alone. Tables show the figures, what each costs, which
recipe the other sets would have chosen for each set, and how criteria that need no label rank runs.

The recipes are those of benchmarks/recipe_list.py, or of a Python file whose get_recipes(config)
returns such. The sets are the embedded textures and what --set adds, in the words of
configs/laptop.py, with the root of its data behind @ where it has one; all with the settings of
--config.

WORKDIR gets recipes.json, recipes.md and recipes.csv, and a folder SET/RECIPE/seed=N of each
training, as `train` would have made it, without the fitted detector. Ctrl-C saves and leaves; the
same command goes on, and longer lists add to what is there. What fails is listed with its error,
and tried again by the same command.

  python -m benchmarks.recipes --workdir runs/recipes --seeds 0 1 2 \
    --set screw=mvtec:screw@/data/mvtec_ad --set tire=folder:/data/tire
  python -m benchmarks.recipes --workdir runs/recipes --sets brick grass \
    --only thumbnail untrained 'contrast*/hidden*'
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import ml_collections
import numpy as np

from benchmarks import recipe_baselines, recipe_criteria, recipe_list, recipe_plan, recipe_tables
from benchmarks.recipe_plan import Run
from patch_svdd_jax import commands, config_rules, data
from patch_svdd_jax.commands import console
from patch_svdd_jax.data import image_size
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import evaluate, local_contrast, separation
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.evaluation.separation import Examples
from patch_svdd_jax.experiments import data_record, runner, sweep_statistics
from patch_svdd_jax.experiments.evaluation_run import load_labelled, restore_encoder
from patch_svdd_jax.experiments.runner import Entry, Record, Rendered
from patch_svdd_jax.experiments.training_run import check_resumable, train_encoder
from patch_svdd_jax.models import flops, mean_image
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system import files
from patch_svdd_jax.training import monitoring, train_state, validation
from patch_svdd_jax.training.checkpoints import Checkpoints
from patch_svdd_jax.training.validation import Statistics

RECIPES = pathlib.Path(recipe_list.__file__)
Made = TypeVar('Made')


class Encoder(NamedTuple):
  """An encoder, and what validation says of it; {} where no images are held out."""

  params: Params
  step: int
  statistics: Statistics


class Loaded(NamedTuple):
  """A set, the local contrast f32[N, H, W] of its test images, its synthetic anomalies if any."""

  dataset: data.Dataset
  contrast: np.ndarray
  examples: Examples | None


class Latest(Generic[Made]):
  """Keeps what was made for the latest name, as the runs that share it follow each other."""

  def __init__(self) -> None:
    self._kept: dict[str, Made] = {}

  def get(self, name: str, make: Callable[[], Made]) -> Made:
    """Returns what was made for the name, or makes it; what was kept before is let go first."""
    if name not in self._kept:
      self._kept.clear()
      self._kept[name] = make()
    return self._kept[name]


def load(config: ml_collections.ConfigDict) -> Loaded:
  """Loads a set, measures the contrast around its pixels, and spoils its held-out images."""
  dataset = load_labelled(config.data)
  contrast = local_contrast.standard_deviation(dataset.test.images, min(config.encoder.scales))
  held_out = dataset.held_out.images
  return Loaded(dataset, contrast, separation.make_examples(held_out) if len(held_out) else None)


def obtain(run: Run, dataset: data.Dataset) -> Encoder:
  """Trains the encoder of a run as far as it is not, or draws it where it is not to be trained.

  Raises:
    StoppedError: training was told to stop.
  """
  if run.trained:
    trained = train_encoder(run.training, run.workdir, dataset)
    with Checkpoints(run.workdir) as checkpoints:
      return Encoder(trained.params, trained.step, checkpoints.statistics[trained.step] or {})
  normal = dataset.train.images
  config = image_size.resolved(run.training, normal.shape[1:3])
  params = train_state.init_state(config).params
  mean = mean_image.training_mean(normal, config.train.mean, dataset.train.regions)
  validate = validation.make_validation(
    config,
    strides_of(config),
    normal,
    dataset.held_out.images,
    mean,
    data.regions_of(dataset.train, dataset.held_out),
  )
  return Encoder(params['encoder'], 0, validate(params))


def figures(scorer: Scorer, loaded: Loaded, statistics: Statistics) -> Entry:
  """Returns the metrics of all maps, the criteria that need no label, and the speed."""
  test = loaded.dataset.test
  evaluation = evaluate.evaluate(scorer, test)
  use = test.has_mask
  within = {
    name: local_contrast.auroc_within_groups(
      loaded.contrast[use], test.masks[use], evaluation.scores.maps[name][use]
    )
    for name in evaluation.maps
  }
  found: Entry = files.to_json(
    {
      'maps': {
        name: metrics | {recipe_tables.CONTRAST_AUROC: within[name]}
        for name, metrics in evaluation.maps.items()
      },
      'criteria': recipe_criteria.measure(
        scorer, statistics, loaded.dataset.held_out, loaded.examples
      ),
      'costs': {'images_per_s': evaluation.timing['images_per_s']},
    }
  )
  return found


def training_costs(run: Run) -> dict[str, float]:
  """Returns the seconds of the steps of a training, without compilation, and its FLOPs."""
  lines, steps = monitoring.read(run.workdir), run.training.train.steps
  return {
    'training_s': sweep_statistics.step_seconds(lines) * steps,
    'training_tflop': flops.step_flops(run.training) * steps / 1e12,
  }


@dataclasses.dataclass(frozen=True)
class Search:
  """The record of all runs, and whether every checkpoint that was kept is measured."""

  record: Record
  every_checkpoint: bool
  sets: Latest[Loaded] = dataclasses.field(default_factory=Latest)
  encoders: Latest[Encoder] = dataclasses.field(default_factory=Latest)

  @property
  def entries(self) -> dict[str, Entry]:
    """Returns the entry of each run by its name."""
    entries: dict[str, Entry] = self.record.contents['runs']
    return entries

  def render(self) -> Rendered:
    """Returns the tables of all runs that the record has."""
    return Rendered(recipe_tables.render(self.entries), recipe_tables.sheet(self.entries))

  def is_measured(self, run: Run, entry: Entry) -> bool:
    """Returns whether all figures of a run are there."""
    wanted = self.every_checkpoint and run.trained
    return 'maps' in entry and (not wanted or 'checkpoints' in entry)

  def measure(self, run: Run, entry: Entry) -> None:
    """Trains and measures a run.

    Raises:
      StoppedError: training was told to stop.
    """
    # A recipe may set how images are loaded, too.
    images = json.dumps([run.category, run.config.data.to_dict(), run.config.encoder.scales])
    loaded = self.sets.get(images, lambda: load(run.config))
    folder = self.record.path.parent
    data_record.begin_experiment(folder, run.config.data, loaded.dataset, run.category)
    normal = loaded.dataset.train.images
    about = {'set': run.category, 'row': run.row, 'seed': run.config.seed, 'trained': run.trained}
    if run.is_baseline:
      start = time.perf_counter()
      scorer = recipe_baselines.FITTED[run.row](run.config, normal)
      costs = {'fit_s': time.perf_counter() - start}
      found = figures(scorer, loaded, {})
    else:
      encoder = self.encoders.get(str(run.workdir), lambda: obtain(run, loaded.dataset))
      start = time.perf_counter()
      detector = Detector.fit(run.config, encoder.params, normal, step=encoder.step)
      costs = {'fit_s': time.perf_counter() - start}
      costs['image_gflop'] = flops.image_flops(detector.config) / 1e9
      if run.trained:
        costs |= training_costs(run)
      found = figures(detector, loaded, encoder.statistics)
      if self.every_checkpoint and run.trained:
        found['checkpoints'] = measure_checkpoints(run, loaded, encoder.step)
    found['costs'] |= costs
    entry |= about | {'values': files.to_json(run.values)} | found


def measure_checkpoints(run: Run, loaded: Loaded, chosen: int) -> dict[str, Entry]:
  """Returns the figures of the checkpoints that were kept besides the chosen one, by step."""
  found = {}
  with Checkpoints(run.workdir) as checkpoints:
    for step in checkpoints.steps:
      if step != chosen:
        params = restore_encoder(checkpoints, run.workdir, step)
        detector = Detector.fit(run.config, params, loaded.dataset.train.images, step=step)
        found[str(step)] = figures(detector, loaded, checkpoints.statistics[step] or {})
  return found


def check_values(runs: Sequence[Run], entries: Mapping[str, Mapping[str, Any]]) -> None:
  """Refuses a row whose settings differ from those it was measured with before.

  Raises:
    UserError: names the row.
  """
  for run in runs:
    values = files.to_json(run.values)
    before = entries.get(run.name, {}).get('values', values)
    if before != values:
      raise UserError(
        f'{run.name} was measured with {before}, not {values}: use another --workdir, or another '
        'name'
      )


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the options."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.recipes',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  console.add_config_argument(parser, required=False)
  parser.set_defaults(config='laptop')
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of all runs')
  parser.add_argument(
    '--set',
    action='append',
    default=[],
    dest='added',
    metavar='NAME=ARGUMENT[@ROOT]',
    help='a set beside the textures, as screw=mvtec:screw@/data/mvtec_ad or tire=folder:/data/tire',
  )
  parser.add_argument('--sets', nargs='+', metavar='NAME', help='of all, those to run on')
  parser.add_argument(
    '--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default 0, 1 and 2'
  )
  parser.add_argument(
    '--recipes', type=console.path, default=RECIPES, metavar='FILE', help='of get_recipes'
  )
  parser.add_argument(
    '--only',
    nargs='+',
    metavar='PATTERN',
    help='of all rows, RECIPE/SCORING or a baseline, those that match, as raw_patch or authors/*; '
    'the name of a recipe stands for all its scorings',
  )
  parser.add_argument(
    '--every-checkpoint',
    action='store_true',
    help='measure all checkpoints that were kept (config.checkpoint.keep), for rank correlations',
  )
  return parser


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Trains, measures, writes."""
  config = config_rules.read(options.config, rest)
  configs = recipe_plan.sets(config, options.added, options.sets)
  recipes = recipe_plan.read_recipes(options.recipes, config)
  workdir = options.workdir
  runs = recipe_plan.plan(configs, recipes, workdir, seeds=options.seeds, only=options.only)
  with files.locked(workdir):
    record = Record.read(workdir / 'recipes.json', 'benchmarks.recipes', 'sets', 'runs')
    for name, each in configs.items():
      record.begin(each, name, record.contents['sets'], free=['config.seed:'])
    search = Search(record, options.every_checkpoint)
    check_values(runs, search.entries)
    for each in runs:
      if each.trained:
        check_resumable(each.training, each.workdir)
    data_record.check_kept(workdir, [(each.config.data, each.category) for each in runs])
    return runner.run(
      record,
      search.entries,
      runs,
      is_measured=search.is_measured,
      measure=search.measure,
      render=search.render,
      # Memory may hold the other runs.
      failures=(UserError, jax.errors.JaxRuntimeError),
    )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns the exit status."""
  options, overrides = make_parser().parse_known_args(argv)
  return commands.answer(functools.partial(run, options, overrides))


if __name__ == '__main__':
  sys.exit(main())
