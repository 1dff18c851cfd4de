"""What the members of a sweep have in common: means and confidence intervals, tables, the curve."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from patch_svdd_jax.figures import encode

CONFIDENCE = 0.95
# What the tables and the curve show of each map.
AUROCS = {'image_auroc': 'image AUROC', 'pixel_auroc': 'pixel AUROC'}
ACCURACY = 'position_accuracy'

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
    groups: of sweep.json: by name, 'random_encoder' with the metrics of its maps, and 'members',
      each with 'seed', 'svdd_weight', 'learning_rate' and either 'lost_at' or 'maps' and
      'position_accuracy'.
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
          ACCURACY: combine([{ACCURACY: member[ACCURACY]} for member in whole]).get(ACCURACY, {}),
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
  """The title, header and rows of each table: image and pixel AUROC of all maps, accuracies."""
  settings = summarise(groups)
  untrained = {name: group['random_encoder'] for name, group in groups.items()}
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


def draw(groups: Mapping[str, Any], suffix: str) -> bytes:
  """The lambda curve: AUROC of each group's last map over lambda, with confidence intervals.

  lambda = 0, which a logarithmic axis lacks, stands apart at its left end; the untrained encoder is
  a dashed line.
  """
  from matplotlib.figure import Figure  # it draws without a screen

  settings = summarise(groups)
  weights = sorted({setting['svdd_weight'] for setting in settings})
  positive = [weight for weight in weights if weight > 0]
  figure = Figure(figsize=(11, 4.5), layout='constrained')
  panels = figure.subplots(1, 2)
  for panel, (metric, title) in zip(panels, AUROCS.items(), strict=True):
    lines = list(dict.fromkeys((each['group'], each['learning_rate']) for each in settings))
    for number, (name, rate) in enumerate(lines):
      last = list(groups[name]['random_encoder'])[-1]
      of_line = [
        (each['svdd_weight'], each['maps'][last][metric])
        for each in settings
        if (each['group'], each['learning_rate']) == (name, rate) and each['maps']
      ]
      points = [(weight, interval) for weight, interval in of_line if interval.mean is not None]
      shown = f'{name}, rate {rate:g}, {last}'
      # The first call names the line; what stands apart is not joined to the rest.
      for part in ([p for p in points if p[0] > 0], [p for p in points if p[0] == 0]):
        if part:
          panel.errorbar(
            [weight for weight, _ in part],
            [interval.mean for _, interval in part],
            [interval.half_width or 0.0 for _, interval in part],
            marker='o',
            capsize=3,
            color=f'C{number}',
            label=shown,
          )
          shown = '_'
      untrained = groups[name]['random_encoder'][last][metric]
      if untrained is not None:
        panel.axhline(untrained, color=f'C{number}', linestyle='--', linewidth=1, alpha=0.6)
    if positive:
      panel.set_xscale('symlog', linthresh=positive[0], linscale=0.5)
    if positive and weights[0] == 0:
      panel.axvspan(-positive[0] / 4, positive[0] / 4, color='0.93', zorder=0)
    panel.set_xticks(weights, [f'{weight:g}' for weight in weights], minor=False)
    panel.minorticks_off()
    panel.set(xlabel='lambda', ylabel=title)
    panel.grid(alpha=0.3)
  handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
  if handles:
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', fontsize='small')
  figure.suptitle(
    f'mean and {CONFIDENCE:.0%} confidence interval over seeds; dashed: untrained encoder'
  )
  return encode(figure, suffix)
