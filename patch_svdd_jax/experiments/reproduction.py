"""The categories of a data set, measured with some seeds, beside the paper's figures if it has any.

An entry is what is known of one run of a category: the metrics of its main map (None for one that
needs both classes) where its 'status' is MEASURED, and an 'error' where that is FAILED. Runs are
named by their column: 'authors', 'trained', and 'trained_1', 'trained_2', ... for further seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.experiments.paper_results import RESULTS, Aurocs
from patch_svdd_jax.experiments.sweep_statistics import Interval, confidence_interval
from patch_svdd_jax.experiments.sweep_tables import interval
from patch_svdd_jax.reporting.table import Column, Table, cell, latex, markdown

# What is measured here, and its heading; the paper's column stands before them.
PAPER = 'paper'
COLUMNS = {'authors': "authors' weights here", 'trained': 'trained here'}
# What the paper reports.
METRICS = Aurocs._fields

# How far a run has come; one without status has not been measured yet.
MEASURED, FAILED, NO_DATA, NO_WEIGHTS = 'measured', 'failed', 'no data', 'no weights'
LACKING = {NO_DATA: 'No data', NO_WEIGHTS: 'No weights of the authors'}

# What a category has, by the name of the run.
Runs = Mapping[str, Mapping[str, Any]]


def run_name(column: str, seed: int) -> str:
  """Returns the name of the run of a column's seed, counted from 0."""
  return f'{column}_{seed}' if seed else column


def rank(run: str) -> tuple[str, int]:
  """Returns what sorts runs: those of the authors, then those trained here by seed."""
  column, _, seed = run.partition('_')
  return column, int(seed or 0)


def column_of(run: str) -> str:
  """Returns the column of a run."""
  return run.partition('_')[0]


def flat(categories: Mapping[str, Runs]) -> dict[str, dict[str, Any]]:
  """Returns the entries by 'CATEGORY/RUN', without the paper's."""
  return {
    f'{category}/{run}': dict(entry)
    for category, runs in categories.items()
    for run, entry in runs.items()
    if run != PAPER
  }


def by_category(entries: Runs, names: Sequence[str], data: str) -> dict[str, dict[str, Any]]:
  """Returns entries of `flat` by category and run, beside the paper's.

  Args:
    entries: of `flat`.
    names: the data set's categories, in the order of the tables; others come last.
    data: the data set; the paper reports on 'mvtec' alone.
  """
  found: dict[str, dict[str, Any]] = {}
  for name, entry in entries.items():
    category, _, run = name.rpartition('/')
    if entry:
      status = {'status': FAILED} if 'error' in entry else {}
      found.setdefault(category, {})[run] = {**status, **entry}
  return {
    category: (
      ({PAPER: RESULTS[category]._asdict()} if data == 'mvtec' else {})
      | dict(sorted(found[category].items(), key=lambda item: rank(item[0])))
    )
    for category in dict.fromkeys([*names, *found])
    if category in found
  }


def seeds(runs: Runs, column: str) -> dict[str, Mapping[str, Any]]:
  """Returns the measured entries of a column by run."""
  return {
    run: entry
    for run, entry in runs.items()
    if column_of(run) == column and entry.get('status') == MEASURED
  }


def intervals(runs: Runs, column: str) -> dict[str, Interval]:
  """Returns what the seeds of a category agree on, by metric; nothing where none was measured."""
  measured = seeds(runs, column).values()
  return {
    metric: confidence_interval(entry.get(metric) for entry in measured)
    for metric in TITLES
    if measured
  }


def mean_intervals(categories: Mapping[str, Runs], column: str) -> dict[str, Interval]:
  """Returns the mean over the categories, and its interval over the seeds that all of them have.

  None where a category lacks the metric; nothing where no category was measured.
  """
  measured = [own for runs in categories.values() if (own := seeds(runs, column))]
  if not measured:
    return {}
  common = sorted(set.intersection(*(set(own) for own in measured)))
  table = [Column(metric, form='.3f') for metric in TITLES]
  means = [Table(table, [own[run] for own in measured]).mean() for run in common]
  return {metric: confidence_interval(mean[metric] for mean in means) for metric in TITLES}


def summary(categories: Mapping[str, Runs]) -> dict[str, Any]:
  """Returns the intervals of each column by category, and those of the mean as 'mean'."""
  found = {
    column: {
      **{
        category: each for category, runs in categories.items() if (each := intervals(runs, column))
      },
      'mean': mean_intervals(categories, column),
    }
    for column in COLUMNS
  }
  return {column: each for column, each in found.items() if each['mean']}


def beside_paper(categories: Mapping[str, Runs]) -> list[dict[str, Any]]:
  """Returns the rows of the paper's table, and means over the categories that a column has.

  Each has a 'name' and, by column, the METRICS as 'figures': means over the seeds. The paper's
  means are over the very same categories, and a column's is None where one was not measured.
  """
  rows = [
    {'name': category, 'categories': [category], 'figures': figures_of(runs)}
    for category, runs in categories.items()
  ]
  names: dict[tuple[str, ...], str] = {}
  for column in COLUMNS:
    measured = tuple(category for category, runs in categories.items() if seeds(runs, column))
    if 0 < len(measured) < len(RESULTS):
      names[measured] = f'{names[measured]}, {column}' if measured in names else column
  named = {f'mean of {len(each)} ({columns})': each for each, columns in names.items()}
  named[f'mean of all {len(RESULTS)}'] = tuple(RESULTS)
  for name, each in named.items():
    own = [figures_of(categories.get(category, {})) for category in each]
    figures = {column: mean([row.get(column) for row in own]) for column in COLUMNS}
    paper = mean([RESULTS[category]._asdict() for category in each])
    rows.append({'name': name, 'categories': list(each), 'figures': {PAPER: paper, **figures}})
  return rows


def figures_of(runs: Runs) -> dict[str, Mapping[str, float | None]]:
  """Returns the METRICS of a category by column, means over its seeds."""
  found = {
    column: {metric: each[metric]['mean'] for metric in METRICS}
    for column in COLUMNS
    if (each := intervals(runs, column))
  }
  return ({PAPER: runs[PAPER]} if PAPER in runs else {}) | found


def mean(rows: Sequence[Mapping[str, Any] | None]) -> dict[str, float | None] | None:
  """Returns the mean of each of the METRICS; None where a row has no figures."""
  known = [row for row in rows if row is not None]
  if len(known) < len(rows):
    return None
  return Table([Column(metric, form='.3f') for metric in METRICS], known).mean()


def sheet(categories: Mapping[str, Runs]) -> Table:
  """Returns all metrics of each column, half the widths of their intervals, and how far it is.

  A row a category, and one of the means over the categories that a column has.
  """
  found = summary(categories)
  shown = [column for column in COLUMNS if any(state(runs, column) for runs in categories.values())]
  rows: list[dict[str, Any]] = []
  for category, runs in categories.items():
    row = {f'{PAPER}_{metric}': value for metric, value in runs.get(PAPER, {}).items()}
    for column in shown:
      row |= _cells(column, found.get(column, {}).get(category, {}))
      row[f'{column}_seeds'] = len(seeds(runs, column))
      row[f'{column}_status'] = state(runs, column)
    rows.append({'category': category, **row})
  if found:
    means = {
      k: v for column, each in found.items() for k, v in _cells(column, each['mean']).items()
    }
    rows.append({'category': 'mean', **means})
  paper = [PAPER] if any(PAPER in runs for runs in categories.values()) else []
  names = [f'{column}_{metric}' for column in paper for metric in METRICS]
  for column in shown:
    names += [*_cells(column, dict.fromkeys(TITLES, confidence_interval([])))]
    names += [f'{column}_seeds', f'{column}_status']
  return Table([Column('category'), *map(Column, names)], rows)


def _cells(column: str, found: Mapping[str, Interval]) -> dict[str, float | None]:
  return {
    f'{column}_{metric}{suffix}': each[key]
    for metric, each in found.items()
    for suffix, key in (('', 'mean'), ('_half_width', 'half_width'))
  }


def state(runs: Runs, column: str) -> str | None:
  """Returns how far a column of a category is: of several seeds, the first that is measured."""
  found = [entry.get('status') for run, entry in runs.items() if column_of(run) == column]
  return MEASURED if MEASURED in found else next(iter(found), None)


def render(categories: Mapping[str, Runs], trained: str) -> str:
  """Returns the tables and what there is to say about them, as Markdown.

  Args:
    categories: of `by_category`.
    trained: what was trained with, as it was given; '' for nothing.
  """
  parts = []
  if any(PAPER in runs for runs in categories.values()):
    rows = [
      [row['name'], *(_shown(row, categories, column) for column in (PAPER, *COLUMNS))]
      for row in beside_paper(categories)
    ]
    parts.append(markdown(['category', 'paper det / seg', *COLUMNS.values()], rows))
    parts.append('Image / pixel AUROC, of the product of the maps.')
  for column, found in summary(categories).items():
    header, rows = full_table(categories, column, found)
    parts += [f'All metrics of the main map, {COLUMNS[column]}:', markdown(header, rows)]
  if any(len(seeds(runs, 'trained')) > 1 for runs in categories.values()):
    parts.append('Mean ± half of the 95 % confidence interval over seeds.')
  if trained:
    parts.append(f'Trained here: `{trained}`.')
  for status, title in LACKING.items():
    lacking = [
      category
      for category, runs in categories.items()
      if any(entry.get('status') == status for entry in runs.values())
    ]
    parts += [f'{title}: {", ".join(lacking)}.'] if lacking else []
  failed = [
    f'- {category}, {COLUMNS[column_of(run)]} ({run}): {entry["error"]}'
    for category, runs in categories.items()
    for run, entry in runs.items()
    if 'error' in entry
  ]
  return '\n\n'.join([*parts, *(['\n'.join(['Failed:', '', *failed])] if failed else [])])


def full_table(
  categories: Mapping[str, Runs], column: str, found: Mapping[str, Mapping[str, Interval]]
) -> tuple[list[str], list[list[str]]]:
  """Returns the heading and the rows of all metrics of a column: categories, then their mean."""
  count = len(found) - 1
  rows = [
    [
      f'mean of {count}' if name == 'mean' else name,
      '' if name == 'mean' else str(len(seeds(categories[name], column))),
      *(interval(each[metric]) for metric in TITLES),
    ]
    for name, each in found.items()
  ]
  return ['category', 'seeds', *TITLES.values()], rows


def to_latex(categories: Mapping[str, Runs]) -> str:
  """Returns the tables of all metrics for LaTeX with the package booktabs."""
  return '\n'.join(
    f'% {COLUMNS[column]}\n{latex(*full_table(categories, column, found))}'
    for column, found in summary(categories).items()
  )


def _shown(row: Mapping[str, Any], categories: Mapping[str, Runs], column: str) -> str:
  """Returns the METRICS of a column as '0.822 / 0.959', or why there are none."""
  if figures := row['figures'].get(column):
    return ' / '.join(cell(figures[metric], '.3f') for metric in METRICS)
  return state(categories.get(row['name'], {}), column) or '-'
