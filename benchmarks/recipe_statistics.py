"""Summarises rows of figures: means, the recipe chosen on other sets, rank correlations.

A point is what was measured of one encoder by one scoring on one set: its 'set', 'row', 'seed' and
'trained', figures by name, and 'criteria', which need no label, by name. A figure that needs both
classes where one is absent is None.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Point = Mapping[str, Any]
# A figure by row and set, the mean over seeds.
Means = dict[str, dict[str, float]]

# What a recipe is chosen by.
CHOSEN_BY = ('image_auroc', 'aupro_5')


def mean(values: Iterable[float | None]) -> float | None:
  """Returns the mean; None where a value is unknown, or there is none."""
  known = list(values)
  return None if not known or None in known else float(np.mean(np.array(known, np.float64)))


def quality(point: Point) -> float | None:
  """Returns what a recipe is chosen by: the mean of image AUROC and AU-PRO .05."""
  return mean(point[name] for name in CHOSEN_BY)


def means_over_seeds(points: Sequence[Point], name: str) -> Means:
  """Returns the mean over seeds of a figure, or of 'quality', by row and set."""
  values: dict[str, dict[str, list[float]]] = {}
  for point in points:
    value = quality(point) if name == 'quality' else point.get(name)
    if value is not None:
      values.setdefault(point['row'], {}).setdefault(point['set'], []).append(value)
  return {
    row: {category: float(np.mean(each)) for category, each in of_row.items()}
    for row, of_row in values.items()
  }


def mean_over_sets(values: Mapping[str, float], sets: Sequence[str]) -> float | None:
  """Returns the mean over all of the sets; None where one is missing."""
  return mean(values.get(category) for category in sets)


def choose(values: Means, sets: Sequence[str], left_out: str) -> tuple[str, float] | None:
  """Returns the row of the highest mean over the other sets, and that mean.

  Only rows that all sets have are candidates, so that what is left out can be looked up; of equal
  ones the first is chosen. None where there is no candidate, or no other set.
  """
  others = [category for category in sets if category != left_out]
  found = {row: mean_over_sets(each, others) for row, each in values.items() if left_out in each}
  known = {row: value for row, value in found.items() if value is not None}
  return max(known.items(), key=lambda item: item[1]) if known else None


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
  """Returns Spearman's rank correlation; None of fewer than three pairs, or where all are equal."""
  first, second = np.array(pairs, np.float64).reshape(-1, 2).T
  if len(pairs) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
    return None
  return float(stats.spearmanr(first, second).statistic)


def correlations(
  points: Sequence[Point], criterion: str, outcome: str, *, same_scoring: bool
) -> dict[str, float]:
  """Returns the rank correlation of a criterion with an outcome within each set that has one.

  Args:
    points: of all sets.
    criterion: the name of one that needs no label.
    outcome: the name of a figure.
    same_scoring: whether only points of one scoring are ranked among each other, as when a
      checkpoint is chosen; the correlations of a set's scorings are averaged.
  """
  groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
  for point in points:
    known, found_by_labels = point['criteria'].get(criterion), point.get(outcome)
    if known is not None and found_by_labels is not None:
      scoring = point['row'].partition('/')[2] if same_scoring else ''
      groups.setdefault((point['set'], scoring), []).append((known, found_by_labels))
  found: dict[str, list[float]] = {}
  for (category, _), pairs in groups.items():
    if (value := spearman(pairs)) is not None:
      found.setdefault(category, []).append(value)
  return {category: float(np.mean(values)) for category, values in found.items()}
