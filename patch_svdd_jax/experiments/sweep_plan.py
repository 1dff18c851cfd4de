"""Which runs a sweep consists of: groups of one program each, and their members.

What the members of a group differ in (seed, lambda, learning rate) is data to one program. Groups
come from lists of values, all of whose combinations there are, or are the rows of an ablation: a
file of configs/ablations that names what each of them sets.
"""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import ml_collections

from patch_svdd_jax import config_rules, configuration
from patch_svdd_jax.data import image_size
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.runner import Job

# The options that list what may differ inside of a program, by the key that each stands for.
OPTIONS = {
  'config.seed': '--seeds',
  'config.train.svdd_weight': '--svdd-weights',
  'config.train.learning_rate': '--learning-rates',
}


@dataclasses.dataclass(frozen=True)
class Group(Job):
  """Runs of one program, whose config lacks what they differ in; `varied` is what it sets."""

  varied: dict[str, Any]
  members: list[Job]

  @property
  def data_name(self) -> str:
    """Names its data set where groups have different folders; '' where all have one."""
    return str(self.varied.get('config.data.root', ''))


def check_numbers(option: str, values: Sequence[float], positive: bool = True) -> None:
  """Checks that there are values, that they differ, and that none is infinite or below 0, or is 0.

  Raises:
    UserError: names the option and the value.
  """
  kind = 'positive numbers' if positive else 'numbers of at least 0'
  if not values:
    raise UserError(f'{option}: give {kind}, with spaces between')
  for place, value in enumerate(values):
    if not 0 <= value < math.inf or (positive and not value):
      raise UserError(f'{option} {value:g}: give {kind}')
    if value in values[:place]:
      raise UserError(f'{option}: {value:g} is there twice')


def variations(config: ml_collections.ConfigDict, vary: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Returns the combinations of what `--vary` lists: values by key, by the name of a folder.

  A name is as 'encoder.depth=5,train.batch_size=64', or 'base' if nothing varies.

  Raises:
    UserError: a list is empty, a key or value does not exist, or something is there twice.
  """
  lists: dict[str, list[Any]] = {}
  for text in vary:
    name, _, values = text.partition('=')
    key = f'config.{name.removeprefix("config.")}'
    # At commas outside of brackets: a value may be a tuple.
    each = re.split(r',(?![^([]*[)\]])', values)
    if not name or not all(each):
      raise UserError(f'--vary {text}: give KEY=V1,V2,..., as encoder.depth=3,5,8')
    if key in OPTIONS:
      raise UserError(f'--vary {text}: give {OPTIONS[key]} instead')
    if key in lists:
      raise UserError(f'--vary {name} is there twice: give one list')
    lists[key] = []
    for value in each:
      changed = configuration.override(
        config.copy_and_resolve_references(), [f'--{key}={value.strip()}']
      )
      parsed = dict(configuration.flatten(changed))[key]
      if parsed in lists[key]:
        raise UserError(f'--vary {text}: {value} is there twice')
      lists[key].append(parsed)
  named: dict[str, dict[str, Any]] = {}
  for combination in itertools.product(*lists.values()):
    varied = dict(zip(lists, combination, strict=True))
    parts = [f'{key.removeprefix("config.")}={value}' for key, value in varied.items()]
    folder = ','.join(map(folder_name, parts)) or 'base'
    if folder in named:
      raise UserError(f'--vary: two combinations would share the folder {folder}')
    named[folder] = varied
  return named


def folder_name(text: str) -> str:
  """Returns the text without what makes trouble in names of folders."""
  return re.sub(r'[^\w.=+-]+', '-', text).strip('-')


def with_values(
  config: ml_collections.ConfigDict, values: dict[str, Any]
) -> ml_collections.ConfigDict:
  """Returns a copy of the config with other values, by full key."""
  copy = config.copy_and_resolve_references()
  copy.update_from_flattened_dict({key.removeprefix('config.'): v for key, v in values.items()})
  return configuration.absolute_places(copy)


def rows(name: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the rows of an ablation by folder name: values by full key.

  Args:
    name: of a file that comes with the package, or its path. Its get_rows(config) returns what each
      row sets, by the row's name and the key without 'config.'.
    config: what rows differ from.

  Raises:
    UserError: there is no such file, its code fails, or a row sets what does not exist.
  """
  path = configuration.find(name, 'ablations')
  found = configuration.call(path, 'get_rows', config.copy_and_resolve_references())
  named: dict[str, dict[str, Any]] = {}
  for title, values in found.items():
    row = {f'config.{key}': value for key, value in values.items()}
    if wrong := configuration.mistakes(row):
      raise UserError(f'{path}, row {title!r}: {"; ".join(wrong)}')
    if folder_name(title) != title:
      raise UserError(f'{path}, row {title!r}: give a name of letters, digits and ._=+-')
    named[title] = row
  return named


def plan(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  *,
  seeds: int,
  svdd_weights: Sequence[float] | None,
  learning_rates: Sequence[float] | None,
  vary: Sequence[str],
  ablation: str | None,
) -> list[Group]:
  """Returns the groups of the sweep, all of whose settings have been checked.

  Args are the options of `sweep`: without values of lambda or rates, members have the config's, or
  what a row of the ablation sets.

  Raises:
    UserError: a list is bad, or its values cannot be trained or scored.
  """
  check_numbers('--seeds', [seeds])
  if svdd_weights is not None:
    check_numbers('--svdd-weights', svdd_weights, positive=False)
  if learning_rates is not None:
    check_numbers('--learning-rates', learning_rates)
  if ablation and vary:
    raise UserError(f'--vary {vary[0]}: --ablation {ablation} lists what varies; leave one out')
  named = rows(ablation, config) if ablation else variations(config, vary)
  groups: list[Group] = []
  for name, varied in named.items():
    common = with_values(config, varied)
    image_size.check_given(common.data.image_size)
    config_rules.validate(common)
    members = []
    for rate, weight, seed in itertools.product(
      learning_rates or [common.train.learning_rate],
      svdd_weights or [common.train.svdd_weight],
      range(seeds),
    ):
      values = dict(zip(OPTIONS, (config.seed + seed, weight, rate), strict=True))
      folder = f'seed={config.seed + seed},lambda={weight!r},rate={rate!r}'
      members.append(Job(folder, with_values(common, values), workdir / name / folder))
    groups.append(Group(name, common, workdir / name, varied, members))
  return groups
