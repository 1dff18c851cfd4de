"""What the members of a sweep have in common: means, confidence intervals, tables."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95
# What the tables and the curve show of each map.
AUROCS = {'image_auroc': 'image AUROC', 'pixel_auroc': 'pixel AUROC'}
ACCURACY = 'position_accuracy'
COST = 'cost'
# What is shown of the cost: heading, name and factor. All runs of a program are trained at once.
COST_COLUMNS = {
  'ms a step, all seeds': ('step_seconds', 1e3),
  'images/s': ('images_per_s', 1.0),
}

Figures = Mapping[str, Mapping[str, float | None]]


class Interval(NamedTuple):
  """A mean over so many seeds, and half of its confidence interval (None for a single seed)."""

  mean: float | None
  half_width: float | None
  seeds: int


def confidence_interval(values: Iterable[float | None]) -> Interval:
  """The mean, and t(n - 1) s / sqrt(n): where it lies in 95 % of such samples (Student 1908).

  Args:
    values: one of each seed; None, which stands for a metric that needs both classes, is left out.
  """
  known = np.array([value for value in values if value is not None], np.float64)
  count = len(known)
  if not count:
    return Interval(None, None, 0)
  mean = float(known.mean())
  if count == 1:
    return Interval(mean, None, 1)
  quantile = special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)
  return Interval(mean, float(quantile * known.std(ddof=1) / math.sqrt(count)), count)


def late_means(lines: Sequence[Mapping[str, float]], steps: int) -> dict[str, float]:
  """The position accuracy of each scale over the last fifth of training.

  Args:
    lines: the metrics of each call, by name, with 'step'.
    steps: of the whole training.
  """
  names = {name for line in lines for name in line if name.startswith(f'{ACCURACY}/')}
  return {
    name.removeprefix(f'{ACCURACY}/'): float(
      np.mean([line[name] for line in lines if name in line and line['step'] > 0.8 * steps])
    )
    for name in sorted(names, key=scale_order)
  }


def step_seconds(lines: Sequence[Mapping[str, float]]) -> float:
  """Of a train step, the median over calls; of all runs that were trained at once."""
  return float(np.median([1 / line['steps_per_s'] for line in lines if 'steps_per_s' in line]))


def scale_order(name: str) -> int:
  """Large scales first, as everywhere."""
  return -int(re.sub(r'\D', '', name))


def combine(members: Sequence[Figures]) -> dict[str, dict[str, Interval]]:
  """The interval of each figure, by the two names it has in each member."""
  if not members:
    return {}
  return {
    outer: {
      inner: confidence_interval(member[outer][inner] for member in members) for inner in figures
    }
    for outer, figures in members[0].items()
  }


def summarise(groups: Mapping[str, Any]) -> list[dict[str, Any]]:
  """One entry for each setting: what its seeds have in common.

  Args:
    groups: of sweep.json: by name, 'random_encoder' with the metrics of its maps, 'parameters' and
      'macs' of the encoder, and 'members', each with 'seed', 'svdd_weight', 'learning_rate' and
      either 'lost_at' or 'maps', 'position_accuracy' and 'cost'. A group that failed has 'error'.
  """
  found = []
  for name, group in groups.items():
    settings: dict[tuple[float, float], list[Any]] = {}
    for member in group['members'].values():
      settings.setdefault((member['learning_rate'], member['svdd_weight']), []).append(member)
    for (learning_rate, svdd_weight), members in sorted(settings.items(), key=lambda item: item[0]):
      whole = [member for member in members if 'maps' in member]
      found.append(
        {
          'group': name,
          'svdd_weight': svdd_weight,
          'learning_rate': learning_rate,
          'seeds': len(whole),
          'lost': len(members) - len(whole),
          'maps': combine([member['maps'] for member in whole]),
          **{
            name: combine([{name: member[name]} for member in whole]).get(name, {})
            for name in (ACCURACY, COST)
          },
        }
      )
  return found


def label(setting: Mapping[str, Any]) -> str:
  """A setting in words."""
  return f'{setting["group"]}, lambda {setting["svdd_weight"]:g}, rate {setting["learning_rate"]:g}'


def cell(interval: Interval | None) -> str:
  """'.912 ± .013', or '.912' for one seed."""
  if interval is None or interval.mean is None:
    return '-'
  half = '' if interval.half_width is None else f' ± {interval.half_width:.3f}'
  return f'{interval.mean:.3f}{half}'


def seeds_of(setting: Mapping[str, Any]) -> str:
  """How many seeds the means are of, and how many runs there are no figures of."""
  return f'{setting["seeds"]}' + (f' ({setting["lost"]} lost)' if setting['lost'] else '')


def names_of(found: Iterable[Mapping[str, Any]]) -> list[str]:
  """The names that occur, each once, in the order of their first occurrence."""
  return list(dict.fromkeys(name for each in found for name in each))


def tables(
  groups: Mapping[str, Any],
) -> Iterator[tuple[str, list[str], list[list[str]]]]:
  """The title, header and rows of each table: AUROCs of all maps, accuracies, costs, failures."""
  settings = summarise(groups)
  untrained = {
    name: group['random_encoder'] for name, group in groups.items() if 'random_encoder' in group
  }
  maps = names_of([*untrained.values(), *(setting['maps'] for setting in settings)])
  for metric, title in AUROCS.items():
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
    yield title, ['setting', 'seeds', *maps], rows
  scales = sorted(names_of(setting[ACCURACY] for setting in settings), key=scale_order)
  rows = [
    [label(setting), seeds_of(setting), *(cell(setting[ACCURACY].get(k)) for k in scales)]
    for setting in settings
  ]
  yield (
    'position accuracy over the last fifth of training (1/8 by chance)',
    ['setting', 'seeds', *scales],
    rows,
  )
  rows = [
    [
      label(setting),
      f'{groups[setting["group"]]["parameters"]:,}',
      f'{groups[setting["group"]]["macs"] / 1e9:.3g}',
      *(number(setting[COST].get(name), scale) for name, scale in COST_COLUMNS.values()),
    ]
    for setting in settings
  ]
  yield 'cost', ['setting', 'parameters', 'GMAC an image', *COST_COLUMNS], rows
  if failed := [[name, group['error']] for name, group in groups.items() if 'error' in group]:
    yield 'failed; the same command tries again', ['group', 'error'], failed


def number(interval: Interval | None, scale: float) -> str:
  """The mean of a cost."""
  return '-' if interval is None or interval.mean is None else f'{scale * interval.mean:.3g}'


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
