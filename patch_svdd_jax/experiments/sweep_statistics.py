"""What the members of a sweep have in common: means and confidence intervals."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95
# What the tables and the curve show of each map.
ACCURACY = 'position_accuracy'
COST = 'cost'

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
