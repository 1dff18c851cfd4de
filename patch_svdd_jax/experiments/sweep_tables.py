"""What a sweep has found as tables, and as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.experiments.sweep_statistics import (
  ACCURACY,
  COST,
  Interval,
  scale_order,
  summarise,
)

# What is shown of the cost: heading, name and factor. All runs of a program are trained at once.
COST_COLUMNS = {
  'ms a step, all seeds': ('step_seconds', 1e3),
  'images/s': ('images_per_s', 1.0),
}

Settings = Sequence[Mapping[str, Any]]


class Table(NamedTuple):
  """A table of text."""

  title: str
  header: list[str]
  rows: list[list[str]]


def label(setting: Mapping[str, Any]) -> str:
  """A setting in words."""
  return f'{setting["group"]}, lambda {setting["svdd_weight"]:g}, rate {setting["learning_rate"]:g}'


def cell(interval: Interval | None) -> str:
  """'.912 ± .013', or '.912' for one seed."""
  if interval is None or interval.mean is None:
    return '-'
  half = '' if interval.half_width is None else f' ± {interval.half_width:.3f}'
  return f'{interval.mean:.3f}{half}'


def number(interval: Interval | None, scale: float) -> str:
  """The mean of a cost."""
  return '-' if interval is None or interval.mean is None else f'{scale * interval.mean:.3g}'


def seeds_of(setting: Mapping[str, Any]) -> str:
  """How many seeds the means are of, and how many runs there are no figures of."""
  return f'{setting["seeds"]}' + (f' ({setting["lost"]} lost)' if setting['lost'] else '')


def names_of(found: Iterable[Mapping[str, Any]]) -> list[str]:
  """The names that occur, each once, in the order of their first occurrence."""
  return list(dict.fromkeys(name for each in found for name in each))


def tables(groups: Mapping[str, Any]) -> Iterator[Table]:
  """Image and pixel AUROC of all maps, position accuracies, costs, and failures if there are."""
  settings = summarise(groups)
  untrained = {
    name: group['random_encoder'] for name, group in groups.items() if 'random_encoder' in group
  }
  for metric, title in AUROCS.items():
    yield auroc_table(title, metric, settings, untrained)
  yield accuracy_table(settings)
  yield cost_table(settings, groups)
  if failed := [[name, group['error']] for name, group in groups.items() if 'error' in group]:
    yield Table('failed; the same command tries again', ['group', 'error'], failed)


def auroc_table(title: str, metric: str, settings: Settings, untrained: Mapping[str, Any]) -> Table:
  """One metric of all maps: of each group the untrained encoder's, then those of its settings."""
  maps = names_of([*untrained.values(), *(setting['maps'] for setting in settings)])
  rows = []
  for name, figures in untrained.items():
    values = (
      Interval(figures[each][metric], None, 1) if each in figures else None for each in maps
    )
    rows.append([f'{name}, untrained', '1', *map(cell, values)])
    rows += [
      [
        label(setting),
        seeds_of(setting),
        *(cell(setting['maps'].get(each, {}).get(metric)) for each in maps),
      ]
      for setting in settings
      if setting['group'] == name
    ]
  return Table(title, ['setting', 'seeds', *maps], rows)


def accuracy_table(settings: Settings) -> Table:
  """How many positions were recognised at the end of training."""
  scales = sorted(names_of(setting[ACCURACY] for setting in settings), key=scale_order)
  rows = [
    [label(setting), seeds_of(setting), *(cell(setting[ACCURACY].get(k)) for k in scales)]
    for setting in settings
  ]
  title = 'position accuracy over the last fifth of training (1/8 by chance)'
  return Table(title, ['setting', 'seeds', *scales], rows)


def cost_table(settings: Settings, groups: Mapping[str, Any]) -> Table:
  """The encoder's size, and what training and scoring took."""
  rows = [
    [
      label(setting),
      f'{groups[setting["group"]]["parameters"]:,}',
      f'{groups[setting["group"]]["macs"] / 1e9:.3g}',
      *(number(setting[COST].get(name), scale) for name, scale in COST_COLUMNS.values()),
    ]
    for setting in settings
  ]
  return Table('cost', ['setting', 'parameters', 'GMAC an image', *COST_COLUMNS], rows)


def to_csv(groups: Mapping[str, Any]) -> str:
  """One line for each setting, map and metric: mean, half width and seeds."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  named = ['group', 'svdd_weight', 'learning_rate']
  writer.writerow([*named, 'what', 'metric', *Interval._fields])
  for setting in summarise(groups):
    parts = setting['maps'] | {name: setting[name] for name in (ACCURACY, COST)}
    for what, figures in parts.items():
      for metric, interval in figures.items():
        writer.writerow([*(setting[name] for name in named), what, metric, *interval])
  return text.getvalue()
