"""What a sweep has found as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.experiments.sweep_statistics import (
  ACCURACY,
  COST,
  Interval,
  scale_order,
  summarise,
)
from patch_svdd_jax.reporting.table import Column, Table, cell, markdown

# What is shown of the cost: heading, name and factor. All runs of a program are trained at once.
COST_COLUMNS = {
  'ms a step, all seeds': ('step_seconds', 1e3),
  'images/s': ('images_per_s', 1.0),
}
SHEET = ('group', 'svdd_weight', 'learning_rate', 'what', 'metric', 'mean', 'half_width', 'seeds')

Settings = Sequence[Mapping[str, Any]]


def label(setting: Mapping[str, Any]) -> str:
  """Returns a setting in words."""
  return f'{setting["group"]}, lambda {setting["svdd_weight"]:g}, rate {setting["learning_rate"]:g}'


def interval(found: Interval | None) -> str:
  """Returns '.912 ± .013', or '.912' for one seed."""
  if not found or found['mean'] is None:
    return '-'
  half = '' if found['half_width'] is None else f' ± {found["half_width"]:.3f}'
  return f'{found["mean"]:.3f}{half}'


def render(groups: Mapping[str, Any]) -> str:
  """Returns tables of AUROCs of all maps, position accuracies, costs, and failures as Markdown."""
  settings = summarise(groups)
  parts = {title: auroc_table(metric, settings, groups) for metric, title in AUROCS.items()}
  scales = sorted({scale for each in settings for scale in each[ACCURACY]}, key=scale_order)
  parts['position accuracy over the last fifth of training (1/8 by chance)'] = markdown(
    ['setting', 'seeds', *scales],
    [with_intervals(setting, setting[ACCURACY], scales) for setting in settings],
  )
  parts['cost'] = cost_table(settings, groups)
  if failed := [[name, group['error']] for name, group in groups.items() if 'error' in group]:
    title = 'failed; the same command tries again'
    parts[title] = markdown(['group', 'error'], failed)
  texts = [f'{title}\n\n{part}' for title, part in parts.items()]
  return '\n\n'.join([*texts, 'mean ± half of the 95 % confidence interval'])


def with_intervals(
  setting: Mapping[str, Any], found: Mapping[str, Interval], names: Sequence[str]
) -> list[str]:
  """Returns a row: the setting, its seeds and how many were lost, and the intervals by name."""
  seeds = f'{setting["seeds"]}' + (f' ({setting["lost"]} lost)' if setting['lost'] else '')
  return [label(setting), seeds, *(interval(found.get(name)) for name in names)]


def auroc_table(metric: str, settings: Settings, groups: Mapping[str, Any]) -> str:
  """Returns one metric of all maps: of each group the untrained encoder's, then its settings'."""
  untrained = {
    name: group['random_encoder'] for name, group in groups.items() if 'random_encoder' in group
  }
  found = [*untrained.values(), *(setting['maps'] for setting in settings)]
  maps = list(dict.fromkeys(name for each in found for name in each))
  rows = []
  for name, figures in untrained.items():
    values = [figures.get(each, {}).get(metric) for each in maps]
    rows.append([f'{name}, untrained', '1', *(cell(value, '.3f') for value in values)])
    rows += [
      with_intervals(setting, {each: of[metric] for each, of in setting['maps'].items()}, maps)
      for setting in settings
      if setting['group'] == name
    ]
  return markdown(['setting', 'seeds', *maps], rows)


def cost_table(settings: Settings, groups: Mapping[str, Any]) -> str:
  """Returns the encoder's size, and what training and scoring took."""
  rows = []
  for setting in settings:
    group, cost = groups[setting['group']], setting[COST]
    rows.append([label(setting), f'{group["parameters"]:,}', f'{group["macs"] / 1e9:.3g}'])
    for name, factor in COST_COLUMNS.values():
      rows[-1].append(f'{factor * cost[name]["mean"]:.3g}' if name in cost else '-')
  return markdown(['setting', 'parameters', 'GMAC an image', *COST_COLUMNS], rows)


def sheet(groups: Mapping[str, Any]) -> Table:
  """Returns one row for each setting, map and metric: mean, half width and seeds."""
  rows = [
    {**setting, 'what': what, 'metric': metric, **found}
    for setting in summarise(groups)
    for what in (*setting['maps'], ACCURACY, COST)
    for metric, found in (setting['maps'] | setting)[what].items()
  ]
  return Table([Column(name) for name in SHEET], rows)
