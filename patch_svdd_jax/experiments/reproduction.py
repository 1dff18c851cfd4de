"""The paper's figures beside those measured here, category by category, and their means.

An entry is what is known of a category in a column: the METRICS (None for one that needs both
classes) where its 'status' is MEASURED, and an 'error' where that is FAILED.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from patch_svdd_jax.experiments.paper_results import RESULTS, Aurocs
from patch_svdd_jax.reporting.table import Column, Table, cell, markdown

# What is measured here, and its heading; the paper's column stands before them.
PAPER = 'paper'
COLUMNS = {'authors': "authors' weights here", 'trained': 'trained here'}
METRICS = Aurocs._fields

# How far a category has come in a column; one without status has not been measured yet.
MEASURED, FAILED, NO_DATA, NO_WEIGHTS = 'measured', 'failed', 'no data', 'no weights'
LACKING = {NO_DATA: 'No data', NO_WEIGHTS: 'No weights of the authors'}

Columns = Mapping[str, Mapping[str, Any]]


def flat(categories: Mapping[str, Columns]) -> dict[str, dict[str, Any]]:
  """Returns the entries by 'CATEGORY/COLUMN', without the paper's."""
  return {
    f'{category}/{column}': dict(entry)
    for category, columns in categories.items()
    for column, entry in columns.items()
    if column in COLUMNS
  }


def beside_paper(entries: Columns) -> dict[str, dict[str, dict[str, Any]]]:
  """Returns entries of `flat` by category and column, in the paper's order and beside its own."""
  found: dict[str, dict[str, dict[str, Any]]] = {}
  for category, figures in RESULTS.items():
    for column in COLUMNS:
      if entry := entries.get(f'{category}/{column}'):
        status = {'status': FAILED} if 'error' in entry else {}
        found.setdefault(category, {PAPER: figures._asdict()})[column] = {**status, **entry}
  return found


def means(categories: Mapping[str, Columns]) -> list[dict[str, Any]]:
  """Returns means over the categories of each column, and over all of the paper's.

  Each has a 'name', the 'categories', and the METRICS by 'columns': the paper's over the very same
  categories, and None where one of them was not measured.
  """
  names: dict[tuple[str, ...], str] = {}
  for column in COLUMNS:
    measured = tuple(
      category
      for category, columns in categories.items()
      if columns.get(column, {}).get('status') == MEASURED
    )
    if 0 < len(measured) < len(RESULTS):
      names[measured] = f'{names[measured]}, {column}' if measured in names else column
  named = {f'mean of {len(each)} ({columns})': each for each, columns in names.items()}
  named[f'mean of all {len(RESULTS)}'] = tuple(RESULTS)
  return [
    {
      'name': name,
      'categories': each,
      'columns': {
        PAPER: mean([RESULTS[category]._asdict() for category in each]),
        **{
          column: mean([categories.get(category, {}).get(column, {}) for category in each])
          for column in COLUMNS
        },
      },
    }
    for name, each in named.items()
  ]


def mean(entries: Sequence[Mapping[str, Any]]) -> dict[str, float | None] | None:
  """Returns the mean of each metric; None where an entry has no figures."""
  found = Table([Column(metric, form='.3f') for metric in METRICS], entries).mean()
  return found if all(entry.keys() >= set(METRICS) for entry in entries) else None


def sheet(categories: Mapping[str, Columns]) -> Table:
  """Returns the METRICS of each column, and how far those here are: a row a category."""
  names = [(PAPER, metric) for metric in METRICS]
  names += [(column, name) for column in COLUMNS for name in (*METRICS, 'status')]
  rows = [
    {'category': category}
    | {f'{column}_{name}': columns.get(column, {}).get(name) for column, name in names}
    for category, columns in categories.items()
  ]
  return Table([Column('category'), *(Column('_'.join(each)) for each in names)], rows)


def render(categories: Mapping[str, Columns], trained: str) -> str:
  """Returns the table and what there is to say about it, as Markdown.

  Args:
    categories: of `beside_paper`.
    trained: what was trained with, as it was given; '' for nothing.
  """
  lines = {**categories, **{each['name']: each['columns'] for each in means(categories)}}
  rows = [
    [name, *(figures(columns.get(column)) for column in (PAPER, *COLUMNS))]
    for name, columns in lines.items()
  ]
  parts = [markdown(['category', 'paper det / seg', *COLUMNS.values()], rows)]
  parts.append('Image / pixel AUROC, of the product of the maps.')
  if trained:
    parts.append(f'Trained here: `{trained}`.')
  for status, title in LACKING.items():
    lacking = [
      category
      for category, columns in categories.items()
      if any(entry.get('status') == status for entry in columns.values())
    ]
    parts += [f'{title}: {", ".join(lacking)}.'] if lacking else []
  failed = [
    f'- {category}, {COLUMNS[column]}: {entry["error"]}'
    for category, columns in categories.items()
    for column, entry in columns.items()
    if 'error' in entry
  ]
  return '\n\n'.join([*parts, *(['\n'.join(['Failed:', '', *failed])] if failed else [])])


def figures(entry: Mapping[str, Any] | None) -> str:
  """Returns the METRICS as '0.822 / 0.959', or why there are none; a dash before their turn."""
  entry = entry or {}
  if entry.keys() >= set(METRICS):
    return ' / '.join(cell(entry[metric], '.3f') for metric in METRICS)
  return str(entry.get('status', '-'))
