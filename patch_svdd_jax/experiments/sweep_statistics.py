"""What the members of a sweep have in common: means and confidence intervals."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

CONFIDENCE = 0.95
# What the tables and the curve show of each map.
ACCURACY = 'position_accuracy'
COST = 'cost'

# A 'mean' over so many 'seeds', and the 'half_width' of its interval (None for a single seed).
Interval = dict[str, Any]
Figures = Mapping[str, Mapping[str, float | None]]


def confidence_interval(values: Iterable[float | None]) -> Interval:
  """Returns the mean, and t(n - 1) s / sqrt(n): 95 % of such intervals have it (Student 1908).

  Args:
    values: one of each seed; None, which stands for a metric that needs both classes, is left out.
  """
  known = np.array([value for value in values if value is not None], np.float64)
  count = len(known)
  half_width = None
  if count > 1:
    quantile = special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)
    half_width = float(quantile * known.std(ddof=1) / math.sqrt(count))
  return {
    'mean': float(known.mean()) if count else None,
    'half_width': half_width,
    'seeds': count,
  }


def late_means(lines: Sequence[Mapping[str, float]], steps: int) -> dict[str, float]:
  """Returns the position accuracy of each scale over the last fifth of training.

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
  """Returns the median time of a train step over calls; of all runs that were trained at once."""
  return float(np.median([1 / line['steps_per_s'] for line in lines if 'steps_per_s' in line]))


def scale_order(name: str) -> int:
  """Sorts large scales first, as everywhere."""
  return -int(re.sub(r'\D', '', name))


def combine(members: Sequence[Figures]) -> dict[str, dict[str, Interval]]:
  """Returns the interval of each figure, by the two names it has in each member.

  A member that an older version has measured may lack a figure: it is left out there.
  """
  return {
    outer: {
      inner: confidence_interval(member[outer].get(inner) for member in members)
      for inner in figures
    }
    for member in members[:1]
    for outer, figures in member.items()
  }


def summarise(groups: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns one entry for each setting: what its seeds have in common.

  Args:
    groups: of sweep.json: by name, 'random_encoder' with the metrics of its maps, 'parameters' and
      'macs' of the encoder, and 'members', each with 'seed', 'svdd_weight', 'learning_rate' and
      either 'lost_at' or 'maps', 'position_accuracy' and 'cost'. A group that failed has 'error'.
  """
  found = []
  for name, group in groups.items():
    settings: dict[tuple[float, float], list[Any]] = {}
    for member in group.get('members', {}).values():
      settings.setdefault((member['learning_rate'], member['svdd_weight']), []).append(member)
    for (learning_rate, svdd_weight), members in sorted(settings.items(), key=lambda item: item[0]):
      whole = [member for member in members if 'maps' in member]
      common = combine([{part: each[part] for part in (ACCURACY, COST)} for each in whole])
      found.append(
        {
          'group': name,
          'svdd_weight': svdd_weight,
          'learning_rate': learning_rate,
          'seeds': len(whole),
          'lost': len(members) - len(whole),
          'maps': combine([member['maps'] for member in whole]),
          ACCURACY: common.get(ACCURACY, {}),
          COST: common.get(COST, {}),
        }
      )
  return found
