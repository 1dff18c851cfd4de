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
from patch_svdd_jax.errors import UserError

# The options that list what may differ inside of a program, by the key that each stands for.
OPTIONS = {
  'config.seed': '--seeds',
  'config.train.svdd_weight': '--svdd-weights',
  'config.train.learning_rate': '--learning-rates',
}


@dataclasses.dataclass(frozen=True)
class Member:
  """One run: its name, whole config and folder."""

  name: str
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs of one program: its name, what was varied, the config without what members differ in."""

  name: str
  varied: dict[str, Any]
  config: ml_collections.ConfigDict
  members: list[Member]


def whole_number(option: str, text: str) -> int:
  """A count of at least 1.

  Raises:
    UserError: names the option.
  """
  if not re.fullmatch(r'0*[1-9][0-9]*', text):
    raise UserError(f'{option} {text}: give a whole number of at least 1')
  return int(text)


def numbers(option: str, texts: Sequence[str], positive: bool) -> list[float]:
  """The numbers of a list, which differ.

  Raises:
    UserError: names the option and the value.
  """
  kind = 'positive numbers' if positive else 'numbers of at least 0'
  found: list[float] = []
  for text in texts:
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    if not (0 <= value < math.inf) or (positive and not value):
      raise UserError(f'{option} {text}: give {kind}')
    if value in found:
      raise UserError(f'{option}: {text} is there twice')
    found.append(value)
  if not found:
    raise UserError(f'{option}: give {kind}, with spaces between')
  return found


def variations(config: ml_collections.ConfigDict, vary: Sequence[str]) -> list[dict[str, Any]]:
  """The combinations of what `--vary` lists, values by key.

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
  return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def folder_name(text: str) -> str:
  """The text without what makes trouble in names of folders."""
  return re.sub(r'[^\w.=+-]+', '-', text).strip('-')


def by_name(combinations: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
  """Combinations by folder, as 'encoder.depth=5,train.batch_size=64'; 'base' if nothing varies.

  Raises:
    UserError: two would share a folder.
  """
  named: dict[str, dict[str, Any]] = {}
  for varied in combinations:
    parts = [f'{key.removeprefix("config.")}={value}' for key, value in varied.items()]
    name = ','.join(map(folder_name, parts)) or 'base'
    if name in named:
      raise UserError(f'--vary: two combinations would share the folder {name}')
    named[name] = varied
  return named


def with_values(
  config: ml_collections.ConfigDict, values: dict[str, Any]
) -> ml_collections.ConfigDict:
  """A copy of the config with other values, by full key."""
  copy = config.copy_and_resolve_references()
  copy.update_from_flattened_dict({key.removeprefix('config.'): v for key, v in values.items()})
  return copy


def rows(name: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """The rows of an ablation by folder name: values by full key.

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
  seeds: str | None,
  svdd_weights: Sequence[str] | None,
  learning_rates: Sequence[str] | None,
  vary: Sequence[str],
  ablation: str | None,
) -> list[Group]:
  """The groups of the sweep, all of whose settings have been checked.

  Args:
    config: what everything starts from.
    workdir: folder of the sweep.
    seeds: how many, as the command line has it; None is one.
    svdd_weights: values of lambda; None is the config's, or what a row sets.
    learning_rates: likewise.
    vary: lists of values of other keys.
    ablation: the file that lists groups; None where `vary` does.

  Raises:
    UserError: a list is bad, or its values cannot be trained or scored.
  """
  count = whole_number('--seeds', '1' if seeds is None else seeds)
  weights, rates = (
    None if given is None else numbers(option, given, positive)
    for option, given, positive in (
      ('--svdd-weights', svdd_weights, False),
      ('--learning-rates', learning_rates, True),
    )
  )
  if ablation and vary:
    raise UserError(f'--vary {vary[0]}: --ablation {ablation} lists what varies; leave one out')
  named = rows(ablation, config) if ablation else by_name(variations(config, vary))
  groups: list[Group] = []
  for name, varied in named.items():
    common = with_values(config, varied)
    config_rules.validate(common)
    members = []
    for rate, weight, seed in itertools.product(
      rates or [common.train.learning_rate], weights or [common.train.svdd_weight], range(count)
    ):
      values = dict(zip(OPTIONS, (config.seed + seed, weight, rate), strict=True))
      folder = f'seed={config.seed + seed},lambda={weight!r},rate={rate!r}'
      own = with_values(common, values)
      members.append(Member(folder, own, workdir / name / folder))
    groups.append(Group(name, varied, common, members))
  return groups
