"""A comparison of runs as tables, and in words."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.paired_tests import CONFIDENCE
from patch_svdd_jax.reporting.measured_run import MeasuredRun
from patch_svdd_jax.reporting.run_comparison import AUPIMO, RANK, Comparison, PairedTest
from patch_svdd_jax.reporting.table import Column, Table, cell

# What is compared image by image, in words.
PAIRED = {AUPIMO: TITLES[AUPIMO], RANK: 'rank of the image score'}

# The metric whose difference has an interval.
INTERVAL_OF = 'image_auroc'

# Of the table that has all.
COLUMNS = (
  'category',
  'run',
  'measure',
  'value',
  'difference',
  'low',
  'high',
  'images',
  'better',
  'worse',
  'median',
  'p_value',
  'p_holm',
)


def contents(comparison: Comparison) -> Iterator[str]:
  """Yields a line about the images, and about each run."""
  by_category = comparison.runs[0].categories.values()
  images = [image for category in by_category for image in category.images.values()]
  bad = sum(image.anomalous for image in images)
  yield f'{len(images):,} test images: {len(images) - bad:,} normal, {bad:,} anomalous'
  for name, run in zip(comparison.names, comparison.runs, strict=True):
    size = f', {map_sizes(run)}' if run.sizes else ''
    yield f'{name}: {run.place} (map {run.main_map}{size})'


def map_sizes(run: MeasuredRun) -> str:
  """Returns the sizes of a run's maps as text; '' where they are not known."""
  return ' and '.join(f'{width} x {height}' for height, width in sorted(run.sizes))


def notes(comparison: Comparison) -> list[str]:
  """Returns what a reader should mind of the runs."""
  found, runs = [], comparison.runs
  if len({run.main_map for run in runs}) > 1:
    found.append('The runs have different main maps: their figures are of those named above.')
  if len({run.sizes for run in runs if run.sizes}) > 1:
    found.append(
      'The maps are of different sizes: pixel metrics and AUPIMO, which count pixels, are of '
      'different resolutions.'
    )
  return found


def explanations(comparison: Comparison) -> list[str]:
  """Returns what the figures mean, a paragraph each."""
  made = sum(not np.isnan(test.corrected) for test in comparison.tests)
  mean = ' Of the mean over categories, each is resampled by itself.' * comparison.several
  interval = (
    f'Differences are to {comparison.names[0]}. In brackets, of the {TITLES[INTERVAL_OF]}: the '
    f'{CONFIDENCE:.0%} percentile interval of the difference in {comparison.resamples:,} samples '
    'of the test images, drawn with replacement within their class, the same for all runs (seed '
    f'{comparison.seed}).{mean} It tells what the choice of test images leaves to chance, not what '
    'training does, and each interval stands for itself. F1 and mIoU are at the thresholds that '
    'are best for these test labels.'
  )
  tests = (
    'Paired tests: Wilcoxon signed-rank, two-sided, over images; those without a difference are '
    'left out. AUPIMO is compared on defective images. Its thresholds are set by few pixels of the '
    'normal images, which the test takes as given: it does not tell what other normal images would '
    "have made of it. The rank of an image score is the share of its run's other images that "
    'score lower, so no common scale of scores is needed; better is higher for anomalous images '
    'and lower for normal ones.'
  )
  corrected = (
    f'p (Holm) is corrected for the {made} tests above together: where no run differs, the '
    'probability that any of them falls below a level is at most that level.'
  )
  return [interval, tests, *([corrected] if made else [])]


def figures_tables(comparison: Comparison) -> dict[str, Table]:
  """Returns tables of figures by title: of all metrics, then of each metric by category."""
  count = len(comparison.runs[0].categories)
  title = f'Mean of {count} categories' if comparison.several else 'Figures'
  lines = {text: (comparison.whole, metric) for metric, text in TITLES.items()}
  found = {title: _figures_table('metric', comparison, lines)}
  if comparison.several:
    for metric, text in TITLES.items():
      lines = {'mean' if each == EVERY else each: (each, metric) for each in comparison.figures}
      found[text] = _figures_table('category', comparison, lines)
  return found


def _figures_table(
  heading: str, comparison: Comparison, lines: Mapping[str, tuple[str, str]]
) -> Table:
  """Returns the figures of all runs, and their differences.

  Args:
    heading: of the first column.
    comparison: of the runs.
    lines: category and metric by what the first column calls them.
  """
  names, others = comparison.names, comparison.others
  alone = len(others) == 1
  columns = [
    Column('line', heading),
    *(Column(f'value {run}', name, '.4f') for run, name in enumerate(names)),
    *(
      Column(f'difference {run}', 'difference' if alone else f'{names[run]}: difference')
      for run in others
    ),
  ]
  rows = []
  for line, (category, metric) in lines.items():
    figures = comparison.figures[category]
    values = {f'value {run}': each[metric] for run, each in enumerate(figures)}
    differences = {
      f'difference {run}': _difference(comparison, category, run, metric) for run in others
    }
    rows.append({'line': line, **values, **differences})
  return Table(columns, rows)


def _difference(comparison: Comparison, category: str, run: int, metric: str) -> str:
  """Returns a difference as text, with its interval where it has one."""
  text = cell(comparison.difference(category, run, metric), '+.4f')
  low, high = comparison.intervals[category, run]
  if metric != INTERVAL_OF or np.isnan(low):
    return text
  return f'{text} [{low:+.4f}, {high:+.4f}]'


def paired_table(comparison: Comparison) -> Table:
  """Returns the paired tests."""
  columns = [
    Column('measure', 'paired by image'),
    Column('category', 'category' if comparison.several else None),
    Column('run', 'run' if len(comparison.others) > 1 else None),
    Column('images', 'images', 'd'),
    Column('better', 'better', 'd'),
    Column('worse', 'worse', 'd'),
    Column('median', 'median difference', '+.4f'),
    Column('p_value', 'p', '.2g'),
    Column('p_holm', 'p (Holm)', '.2g'),
  ]
  rows = [
    _test_row(test) | {'measure': PAIRED[test.measure], 'run': comparison.names[test.run]}
    for test in comparison.tests
  ]
  return Table(columns, rows)


def _test_row(test: PairedTest) -> dict[str, Any]:
  return {'category': test.category, **test.found._asdict(), 'p_holm': test.corrected}


def render(comparison: Comparison) -> str:
  """Returns all of it as Markdown."""
  parts = [f'# {comparison.title}', '\n'.join(f'- {line}' for line in contents(comparison))]
  parts += notes(comparison)
  for title, table in figures_tables(comparison).items():
    parts += [f'## {title}', table.to_markdown()]
  parts += ['## Paired tests', paired_table(comparison).to_markdown()]
  return '\n\n'.join([*parts, *explanations(comparison)])


def sheet(comparison: Comparison) -> Table:
  """Returns all of it as one table: a row is a measure of a run, in a category or in EVERY."""
  places = [run.place for run in comparison.runs]
  rows: dict[tuple[str, int, str], dict[str, Any]] = {}
  for category, figures in comparison.figures.items():
    for (run, each), metric in itertools.product(enumerate(figures), TITLES):
      row = {'category': category, 'run': places[run], 'measure': metric, 'value': each[metric]}
      if run:
        row['difference'] = comparison.difference(category, run, metric)
      if run and metric == INTERVAL_OF:
        row['low'], row['high'] = comparison.intervals[category, run]
      rows[category, run, metric] = row
  for test in comparison.tests:
    row = rows.setdefault((test.category, test.run, test.measure), {})
    row |= _test_row(test) | {'run': places[test.run], 'measure': test.measure}
  return Table([Column(name) for name in COLUMNS], list(rows.values()))


def to_json(comparison: Comparison) -> dict[str, Any]:
  """Returns all of it as JSON, with the differences of each image."""
  places = [run.place for run in comparison.runs]
  runs = []
  for number, run in enumerate(comparison.runs):
    figures = {category: each[number] for category, each in comparison.figures.items()}
    runs.append({'run': run.place, 'main_map': run.main_map, 'figures': figures})
    if number:
      runs[-1]['image_auroc_interval'] = {
        category: comparison.intervals[category, number] for category in comparison.figures
      }
  tests = []
  for test in comparison.tests:
    tests.append(_test_row(test) | {'run': places[test.run], 'measure': test.measure})
    if test.category != EVERY:
      names = comparison.runs[0].categories[test.category].images
      tests[-1]['differences'] = dict(zip(names, test.differences.tolist(), strict=True))
  return {'runs': runs, 'tests': tests, 'resamples': comparison.resamples, 'seed': comparison.seed}
