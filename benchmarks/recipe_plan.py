"""Which runs a search over recipes consists of: recipes x scorings x sets x seeds.

A recipe is a training and the scorings that its encoder is measured with. A run is one scoring of
one training with one seed on one set; runs of one training share a workdir, and train once.
"""

import dataclasses
import fnmatch
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from benchmarks import recipe_baselines
from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.configs import laptop
from patch_svdd_jax.configuration import flatten
from patch_svdd_jax.data import image_size
from patch_svdd_jax.data.textures import CATEGORIES
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.runner import Job
from patch_svdd_jax.experiments.sweep_plan import folder_name, with_values

# Values by config key, without 'config.'.
Overrides = Mapping[str, Any]


class Recipe(NamedTuple):
  """A training, by what it sets, and its scorings by name, by what they set besides.

  `trained` is False where the encoder stays as it was drawn.
  """

  training: Overrides
  scorings: Mapping[str, Overrides]
  trained: bool = True


@dataclasses.dataclass(frozen=True)
class Run(Job):
  """A job whose figures are one row.

  Attributes:
    category: name of the set.
    row: 'RECIPE/SCORING', or the name of a baseline.
    training: the config without the scoring, which the runs of one encoder share.
    trained: whether there is an encoder that takes steps.
    values: what the row sets otherwise than the set's config, by full key.
  """

  category: str
  row: str
  training: ml_collections.ConfigDict
  trained: bool
  values: dict[str, Any]

  @property
  def is_baseline(self) -> bool:
    """Whether there is no encoder in it."""
    return self.row in recipe_baselines.FITTED


def sets(
  config: ml_collections.ConfigDict, added: Sequence[str], chosen: Sequence[str] | None
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the config of each set by name: the given one with the data of the set.

  Args:
    config: what all sets share.
    added: of `--set`, NAME=ARGUMENT[@ROOT] with the argument of configs/laptop.py, beside the
      embedded textures.
    chosen: of `--sets`, names; None: all.

  Raises:
    UserError: a set is given wrongly, or one that is chosen does not exist.
  """
  arguments = {name: name for name in CATEGORIES}
  for text in added:
    name, equals, argument = text.partition('=')
    if not equals or not argument or folder_name(name) != name:
      raise UserError(f'--set {text}: give NAME=ARGUMENT[@ROOT], as screw=mvtec:screw@/data/mvtec')
    arguments[name] = argument
  if unknown := [name for name in chosen or [] if name not in arguments]:
    raise UserError(f'--sets {unknown[0]}: give some of {", ".join(arguments)}, or add it by --set')
  found = {}
  for name in chosen or arguments:
    argument, _, root = arguments[name].partition('@')
    named = laptop.get_config(argument).data
    place = {'name': named.name, 'category': named.category, 'root': root or named.root}
    found[name] = with_values(config, {f'config.data.{key}': value for key, value in place.items()})
    image_size.check_given(found[name].data.image_size)
  return found


def read_recipes(file: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, Recipe]:
  """Returns the recipes of a Python file by name, by its get_recipes(config).

  Raises:
    UserError: its code fails, or a recipe sets what does not exist or has a bad name.
  """
  found: dict[str, Recipe] = configuration.call(
    file, 'get_recipes', config.copy_and_resolve_references()
  )
  for name, recipe in found.items():
    for title in (name, *recipe.scorings):
      if folder_name(title) != title or title in recipe_baselines.FITTED:
        raise UserError(f'{file}, {title!r}: give a name of letters, digits and ._=+-')
    for values in (recipe.training, *recipe.scorings.values()):
      if wrong := configuration.mistakes(full_keys(values)):
        raise UserError(f'{file}, recipe {name!r}: {"; ".join(wrong)}')
  return found


def full_keys(values: Overrides) -> dict[str, Any]:
  """Returns the values by keys as 'config.train.steps'."""
  return {f'config.{key}': value for key, value in values.items()}


def plan(
  configs: Mapping[str, ml_collections.ConfigDict],
  recipes: Mapping[str, Recipe],
  workdir: pathlib.Path,
  *,
  seeds: Sequence[int],
  only: Sequence[str] | None,
) -> list[Run]:
  """Returns all runs, checked: of the first seed those of every set, then those of the next.

  Args:
    configs: of each set.
    recipes: by name; the baselines come on top.
    workdir: of all.
    seeds: values of config.seed.
    only: patterns as of a shell, of rows or of recipes; None: all.

  Raises:
    UserError: a pattern matches nothing, or settings cannot be trained or scored.
  """
  encoded = [f'{name}/{each}' for name, recipe in recipes.items() for each in recipe.scorings]
  rows = [*recipe_baselines.FITTED, *encoded]
  for pattern in only or []:
    if not any(matches(row, pattern) for row in rows):
      raise UserError(f'--only {pattern}: matches no row; there are {", ".join(rows)}')
  chosen = {row for row in rows if not only or any(matches(row, each) for each in only)}
  runs = []
  for seed, (category, config) in itertools.product(seeds, configs.items()):
    seeded = with_values(config, {'config.seed': seed})
    for name in recipe_baselines.FITTED:
      job, place = f'{category}/{name}/seed={seed}', workdir / category / name / f'seed={seed}'
      if name in chosen:
        runs.append(Run(job, seeded, place, category, name, seeded, False, {}))
    for name, recipe in recipes.items():
      wanted = {each: v for each, v in recipe.scorings.items() if f'{name}/{each}' in chosen}
      runs += runs_of(name, recipe._replace(scorings=wanted), seeded, workdir, category)
  for run in runs:
    config_rules.validate(run.config, training=run.trained)
  return runs


def matches(row: str, pattern: str) -> bool:
  """Returns whether a row is meant: by its whole name or that of its recipe."""
  return any(fnmatch.fnmatchcase(name, pattern) for name in (row, row.partition('/')[0]))


def runs_of(
  name: str,
  recipe: Recipe,
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  category: str,
) -> Iterator[Run]:
  """Yields the runs of a recipe with the config of a set and a seed; all have one folder."""
  training, before = with_values(config, full_keys(recipe.training)), dict(flatten(config))
  folder = workdir / category / name / f'seed={config.seed}'
  for scoring, overrides in recipe.scorings.items():
    row, whole = f'{name}/{scoring}', with_values(training, full_keys(overrides))
    values = {key: value for key, value in flatten(whole) if value != before[key]}
    job = f'{category}/{row}/seed={config.seed}'
    yield Run(job, whole, folder, category, row, training, recipe.trained, values)
