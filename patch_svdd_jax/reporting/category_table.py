"""Categories side by side, with their mean.

An entry of a category is what its metrics.json has, of which the main map counts, besides 'step';
or 'error', one line, where it failed; or no 'maps' where it has no test images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS, TITLES
from patch_svdd_jax.reporting.compared import REFERENCES
from patch_svdd_jax.reporting.table import Column, Table

COLUMNS = (
  Column('category', 'category'),
  Column('step'),
  *(Column(metric, title, '.4f') for metric, title in TITLES.items()),
  *(
    Column(f'{name}_{metric}', f'{name} {TITLES[metric]}', '.4f')
    for name in REFERENCES
    for metric in AUROCS
  ),
  Column('error'),
)

Figures = Mapping[str, float | None]
Row = dict[str, Any]


def row(category: str, figures: Figures, others: Mapping[str, Figures]) -> Row:
  """Returns the values of a category by column; none where it was not measured.

  Args:
    category: its name.
    figures: of the detector.
    others: what it is compared with, as metrics.json names it.
  """
  beside = {
    f'{name}_{metric}': others.get(other, {}).get(metric)
    for name, other in REFERENCES.items()
    for metric in AUROCS
  }
  return {'category': category, **figures, **beside}


def with_mean(rows: Sequence[Row]) -> str:
  """Returns rows of categories that were measured, and their mean, as Markdown."""
  mean = {'category': f'mean of {len(rows)}', **Table(COLUMNS, rows).mean()}
  return Table(COLUMNS, [*rows, mean] if rows else []).to_markdown()


def render(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, Table]:
  """Returns what was measured and what was not as Markdown, and one row a category for CSV."""
  rows, shown, notes = [], [], []
  for name, entry in entries.items():
    others = {other: main_figures(entry.get(other, {})) for other in REFERENCES.values()}
    each = row(name, main_figures(entry), others)
    rows.append(each | {'step': entry.get('step'), 'error': entry.get('error')})
    if 'maps' in entry:
      shown.append(each)
    else:
      why = f'failed: {entry["error"]}' if 'error' in entry else 'has no test images'
      notes.append(f'{name} {why}')
  return '\n\n'.join([with_mean(shown), *notes]), Table(COLUMNS, rows)


def main_figures(entry: Mapping[str, Any]) -> Figures:
  """Returns the metrics of the main map; none where nothing was measured."""
  maps = entry.get('maps')
  return maps[main_map(maps)] if maps else {}
