"""The paper's figures beside those measured here, category by category, and their means."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from patch_svdd_jax.experiments import paper_results

PAPER = 'paper'
# What is measured here, and its heading.
COLUMNS = {'authors': "authors' weights here", 'trained': 'trained here'}
METRICS = paper_results.Aurocs._fields

# How far a category has come in a column; one without status has not been measured yet.
MEASURED, FAILED, NO_DATA, NO_WEIGHTS = 'measured', 'failed', 'no data', 'no weights'

# By column, 'status'; the METRICS where it is MEASURED (None for one that needs both classes), and
# an 'error' where it FAILED.
Entries = Mapping[str, Mapping[str, Any]]
Aurocs = dict[str, float | None]


class Mean(NamedTuple):
  """What categories score on average: a name for them, and METRICS by column.

  A column has no figures where one of the categories was not measured.
  """

  name: str
  categories: tuple[str, ...]
  columns: dict[str, Aurocs | None]


def beside_paper(measured: Mapping[str, Entries]) -> dict[str, Entries]:
  """The categories in the paper's order, each with the paper's column first."""
  return {
    category: {
      PAPER: figures._asdict(),
      **{column: measured[category][column] for column in COLUMNS if column in measured[category]},
    }
    for category, figures in paper_results.RESULTS.items()
    if category in measured
  }


def aurocs(entry: Mapping[str, Any] | None) -> Aurocs | None:
  """The METRICS of a category in a column; None where it was not measured."""
  if entry is None or not entry.keys() >= set(METRICS):
    return None
  return {metric: entry[metric] for metric in METRICS}


def means(measured: Mapping[str, Entries]) -> list[Mean]:
  """Means over the categories of each column, and over all of the paper's.

  Each has the paper's mean over the very same categories, and those of the other columns that have
  them all.
  """
  named: dict[tuple[str, ...], list[str]] = {}
  for column in COLUMNS:
    names = [
      category
      for category in paper_results.RESULTS
      if aurocs(measured.get(category, {}).get(column))
    ]
    if 0 < len(names) < len(paper_results.RESULTS):
      named.setdefault(tuple(names), []).append(column)
  found = [
    Mean(f'mean of {len(names)} ({", ".join(columns)})', names, mean_by_column(measured, names))
    for names, columns in named.items()
  ]
  everything = tuple(paper_results.RESULTS)
  name = f'mean of all {len(everything)}'
  return [*found, Mean(name, everything, mean_by_column(measured, everything))]


def mean_by_column(
  measured: Mapping[str, Entries], categories: Sequence[str]
) -> dict[str, Aurocs | None]:
  """The mean of the categories in each column, the paper's first."""
  columns: dict[str, Aurocs | None] = {
    PAPER: mean([paper_results.RESULTS[category]._asdict() for category in categories])
  }
  for column in COLUMNS:
    columns[column] = mean(
      [aurocs(measured.get(category, {}).get(column)) for category in categories]
    )
  return columns


def mean(figures: Sequence[Aurocs | None]) -> Aurocs | None:
  """The mean of each metric: None where a category lacks it, alone or with all others."""
  known = [each for each in figures if each is not None]
  if len(known) < len(figures):
    return None
  values = {metric: [each[metric] for each in known] for metric in METRICS}
  return {
    metric: None if None in each else float(np.mean(np.array(each, np.float64)))
    for metric, each in values.items()
  }


def of_status(measured: Mapping[str, Entries], status: str) -> list[tuple[str, str]]:
  """The categories and columns of a status."""
  return [
    (category, column)
    for category, entries in measured.items()
    for column, entry in entries.items()
    if entry.get('status') == status
  ]


def to_csv(measured: Mapping[str, Entries]) -> str:
  """One line a category, without means: the METRICS of each column, and how far those here are."""
  rows = []
  for category, entries in beside_paper(measured).items():
    row: dict[str, Any] = {'category': category}
    for column in (PAPER, *COLUMNS):
      entry = entries.get(column, {})
      row |= {f'{column}_{metric}': entry.get(metric) for metric in METRICS}
      if column in COLUMNS:
        row[f'{column}_status'] = entry.get('status')
    rows.append(row)
  text = io.StringIO()
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()
