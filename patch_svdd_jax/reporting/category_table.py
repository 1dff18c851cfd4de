"""Categories side by side, with their mean: as a table, and as CSV.

An entry of a category is what its metrics.json has, of which the main map counts, besides 'step';
or 'error', one line, where it failed; or no 'maps' where it has no test images.
"""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS, TITLES
from patch_svdd_jax.reporting import evaluation_files

Figures = Mapping[str, float | None]


def figures(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Figures]:
  """Returns the metrics of the main map of the categories that were measured."""
  measured = {name: entry['maps'] for name, entry in entries.items() if 'maps' in entry}
  return {name: maps[main_map(maps)] for name, maps in measured.items()}


def untrained(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Figures]:
  """The same of the untrained encoder, where it was measured."""
  return figures(
    {name: entry.get(evaluation_files.RANDOM_ENCODER, {}) for name, entry in entries.items()}
  )


def mean(measured: Mapping[str, Figures]) -> Figures:
  """The mean of each metric over the categories; None for one that is not defined in all."""
  columns = {metric: [known(each, metric) for each in measured.values()] for metric in TITLES}
  return {
    metric: None if None in column else float(np.mean(np.array(column, np.float64)))
    for metric, column in columns.items()
  }


def known(measured: Figures, metric: str) -> float | None:
  """The value of a metric; None, or NaN before it is written, stands for one without classes."""
  value = measured[metric]
  return None if value is None or math.isnan(value) else value


def cells(measured: Figures | None, beside: Figures | None) -> list[str]:
  """One row: every metric, then image and pixel AUROC of the untrained encoder."""
  values = [known(measured, metric) if measured else None for metric in TITLES]
  values += [known(beside, metric) if beside else None for metric in AUROCS]
  return ['-' if value is None else f'{value:.4f}' for value in values]


def table(
  measured: Mapping[str, Figures], beside: Mapping[str, Figures]
) -> tuple[list[str], list[list[str]]]:
  """The header, one row a category, and their mean.

  Args:
    measured: the metrics of each category.
    beside: those of the untrained encoder, of all of these categories or none.
  """
  header = ['category', *TITLES.values(), *(f'untrained {TITLES[metric]}' for metric in AUROCS)]
  rows = [[name, *cells(each, beside.get(name))] for name, each in measured.items()]
  if measured:
    average = mean(beside) if beside.keys() == measured.keys() else None
    rows.append([f'mean of {len(measured)}', *cells(mean(measured), average)])
  return header, rows


def notes(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A line about each category without figures."""
  return [
    f'{name} failed: {entry["error"]}' if 'error' in entry else f'{name} has no test images'
    for name, entry in entries.items()
    if 'maps' not in entry
  ]


def to_csv(entries: Mapping[str, Mapping[str, Any]]) -> str:
  """One line a category, in full precision."""
  measured, beside = figures(entries), untrained(entries)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  names = [*TITLES, *(f'untrained_{metric}' for metric in AUROCS)]
  writer.writerow(['category', 'step', *names, 'error'])
  for name, entry in entries.items():
    values = [measured.get(name, {}).get(metric) for metric in TITLES]
    values += [beside.get(name, {}).get(metric) for metric in AUROCS]
    writer.writerow([name, entry.get('step'), *values, entry.get('error', '')])
  return text.getvalue()
