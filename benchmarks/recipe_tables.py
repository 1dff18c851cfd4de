"""The tables of a search over recipes: figures, costs, the choice of other sets, correlations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import recipe_statistics as statistics
from benchmarks.recipe_statistics import Point
from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.reporting.table import Column, Table

CONTRAST_AUROC = 'contrast_auroc'
# What tables show of a map; the CSV file has all metrics.
FIGURES = {name: TITLES[name] for name in ('image_auroc', 'pixel_auroc', 'aupro_5')} | {
  CONTRAST_AUROC: 'pixel AUROC within deciles of local contrast'
}
SHORT = {
  'image_auroc': 'image',
  'pixel_auroc': 'pixel',
  'aupro_5': 'AU-PRO',
  CONTRAST_AUROC: 'deciles',
}
COSTS = {
  'training_s': ('training, s', '.0f'),
  'fit_s': ('fit, s', '.1f'),
  'images_per_s': ('images/s', '.3g'),
  'training_tflop': ('training, TFLOP', '.3g'),
  'image_gflop': ('image, GFLOP', '.3g'),
}
Entries = Mapping[str, Mapping[str, Any]]


def measured(entries: Entries) -> dict[str, Mapping[str, Any]]:
  """Returns the entries that have figures."""
  return {name: entry for name, entry in entries.items() if 'maps' in entry}


def points(entries: Entries, *, checkpoints: bool = False) -> list[Point]:
  """Returns the point of each run, by its main map.

  Args:
    entries: of runs by name; those without figures are passed over.
    checkpoints: whether those that were measured besides the chosen one are points too.
  """
  found = []
  for entry in measured(entries).values():
    about = {name: entry[name] for name in ('set', 'row', 'seed', 'trained')} | entry['costs']
    others = entry.get('checkpoints', {}).values() if checkpoints else []
    found += [
      about | each['maps'][main_map(each['maps'])] | {'criteria': each['criteria']}
      for each in (entry, *others)
    ]
  return found


def by_set(points: Sequence[Point], sets: Sequence[str], name: str) -> Table:
  """Returns the means over seeds of a figure by row and set, and their mean."""
  columns = [Column('row', 'recipe/scoring'), *(Column(each, each, '.3f') for each in sets)]
  columns += [Column('mean', 'mean', '.3f'), Column('seeds', 'seeds', 'd')]
  values = statistics.means_over_seeds(points, name)
  rows = [
    {
      'row': row,
      **each,
      'mean': statistics.mean_over_sets(each, sets),
      'seeds': len({point['seed'] for point in points if point['row'] == row}),
    }
    for row, each in values.items()
  ]
  return Table(columns, rows)


def by_map(entries: Entries, sets: Sequence[str]) -> Table:
  """Returns the means over seeds and sets of the figures of each scale's map, by row."""
  found: dict[tuple[str, str], list[Point]] = {}
  for entry in measured(entries).values():
    for name, figures in entry['maps'].items():
      if name.startswith('k'):
        point = {'set': entry['set'], 'row': entry['row'], **figures}
        found.setdefault((entry['row'], name), []).append(point)
  columns = [Column('row', 'recipe/scoring'), Column('map', 'map')]
  columns += [Column(name, title, '.3f') for name, title in SHORT.items()]
  rows = [
    {'row': row, 'map': name} | over_sets(of_map, sets, FIGURES)
    for (row, name), of_map in found.items()
  ]
  return Table(columns, rows)


def over_sets(
  points: Sequence[Point], sets: Sequence[str], names: Sequence[str] | Mapping[str, Any]
) -> dict[str, float | None]:
  """Returns the means of figures of one row over seeds and sets; None where a set is missing."""
  means = {name: statistics.means_over_seeds(points, name) for name in names}
  return {
    name: statistics.mean_over_sets(of_set, sets)
    for name, values in means.items()
    for of_set in values.values()
  }


def costs(points: Sequence[Point], sets: Sequence[str]) -> Table:
  """Returns what rows cost: means over seeds and sets."""
  columns = [Column('row', 'recipe/scoring')]
  columns += [Column(name, title, form) for name, (title, form) in COSTS.items()]
  rows = dict.fromkeys(point['row'] for point in points)
  return Table(
    columns,
    [
      {'row': row} | over_sets([each for each in points if each['row'] == row], sets, COSTS)
      for row in rows
    ],
  )


def chosen_on_others(points: Sequence[Point], sets: Sequence[str]) -> Table:
  """Returns for each set the trained recipe that the others choose, beside what is untrained."""
  trained = statistics.means_over_seeds([p for p in points if p['trained']], 'quality')
  references = list(dict.fromkeys(point['row'] for point in points if not point['trained']))
  means = {name: statistics.means_over_seeds(points, name) for name in FIGURES}
  lines: list[dict[str, Any]] = []
  for category in sets:
    choice = statistics.choose(trained, sets, category)
    if choice:
      row, quality = choice
      lines.append({'set': category, 'row': f'chosen: {row}', 'others': quality, 'key': row})
      lines += [{'set': category, 'row': row, 'key': row} for row in references]
  for line in lines:
    line |= {name: each.get(line['key'], {}).get(line['set']) for name, each in means.items()}
  columns = [Column('set', 'set'), Column('row', 'recipe/scoring')]
  columns += [Column('others', 'on the others', '.3f')]
  columns += [Column(name, title, '.3f') for name, title in SHORT.items()]
  return Table(columns, [*lines, *mean_lines(lines, sets)])


def mean_lines(lines: Sequence[Mapping[str, Any]], sets: Sequence[str]) -> Iterator[dict[str, Any]]:
  """Yields the means over sets of what was chosen, and of each reference."""
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for line in lines:
    groups.setdefault('chosen' if 'others' in line else line['row'], []).append(line)
  for row, group in groups.items():
    if len(group) == len(sets):
      yield {'set': 'mean', 'row': row} | {
        name: statistics.mean(line[name] for line in group) for name in FIGURES
      }


def rank_correlations(points: Sequence[Point], sets: Sequence[str]) -> Table:
  """Returns Spearman's correlations of criteria that need no label with figures that do."""
  criteria = dict.fromkeys(name for point in points for name in point['criteria'])
  columns = [Column('criterion', 'criterion'), Column('figure', 'with'), Column('among', 'among')]
  columns += [*(Column(each, each, '.2f') for each in sets), Column('mean', 'mean', '.2f')]
  rows = []
  for outcome in statistics.CHOSEN_BY:
    for among, same_scoring in {'all': False, 'one scoring': True}.items():
      for name in criteria:
        found = statistics.correlations(points, name, outcome, same_scoring=same_scoring)
        about = {'criterion': name, 'figure': TITLES[outcome], 'among': among}
        rows.append(about | found | {'mean': statistics.mean(found.values())})
  return Table(columns, rows)


def sheet(entries: Entries) -> Table:
  """Returns all figures, a row for each run and map."""
  criteria = dict.fromkeys(
    name for entry in measured(entries).values() for name in entry['criteria']
  )
  names = ['set', 'row', 'seed', 'map', *TITLES, CONTRAST_AUROC, *COSTS, *criteria, 'error']
  rows: list[dict[str, Any]] = []
  for name, entry in entries.items():
    if 'maps' not in entry:
      rows.append({'row': name, 'error': entry.get('error')})
      continue
    about = {key: entry[key] for key in ('set', 'row', 'seed')} | entry['costs']
    rows += [
      about | entry['criteria'] | {'map': name} | figures for name, figures in entry['maps'].items()
    ]
  return Table([Column(name) for name in names], rows)


def render(entries: Entries) -> str:
  """Returns all tables as Markdown, and the errors."""
  found = points(entries)
  sets = list(dict.fromkeys(point['set'] for point in found))
  sections = {
    **{title: by_set(found, sets, name) for name, title in FIGURES.items()},
    'By scale: means over sets': by_map(entries, sets),
    'Costs: means over sets': costs(found, sets),
    'Chosen on the others, by the mean of image AUROC and AU-PRO .05': chosen_on_others(
      found, sets
    ),
    'Rank correlations of criteria that need no label': rank_correlations(
      points(entries, checkpoints=True), sets
    ),
  }
  parts = [f'## {title}\n\n{table.to_markdown()}' for title, table in sections.items()]
  parts += [f'{name} failed: {each["error"]}' for name, each in entries.items() if 'error' in each]
  return '\n\n'.join(parts)
