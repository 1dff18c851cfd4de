"""Draws what tells runs apart: for a file, or as charts of a page."""

from typing import TYPE_CHECKING

import numpy as np

from patch_svdd_jax.data.categories import EVERY
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.paired_tests import CONFIDENCE
from patch_svdd_jax.reporting.comparison_tables import INTERVAL_OF, PAIRED
from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Chart
from patch_svdd_jax.reporting.measured_run import ALONE
from patch_svdd_jax.reporting.run_comparison import Comparison

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure


# The axes of differences by image.
ACROSS, UP = 'image, by its difference', 'difference'


def draw(comparison: Comparison) -> 'Figure':
  """Draws the intervals, and the differences of the images by each measure, side by side."""
  from matplotlib.figure import Figure  # it draws without a screen

  figure = Figure(figsize=(15, max(4.0, 1.0 + _rows_height(comparison))), layout='constrained')
  first, *others = figure.subplots(1, 1 + len(PAIRED))
  plot_intervals(first, comparison)
  first.set(title=interval_title(comparison), xlabel=UP)
  for panel, measure in zip(others, PAIRED, strict=True):
    plot_images(panel, comparison, measure)
    panel.set(title=images_title(measure), xlabel=ACROSS, ylabel=UP)
  for panel in (first, *others):
    panel.grid(alpha=0.3)
    panel.legend(fontsize='small')
  figure.suptitle(comparison.title)
  return figure


def make_charts(comparison: Comparison) -> list[Chart]:
  """Returns the comparison as charts."""
  height = max(1.2, 0.6 + _rows_height(comparison))
  heading = 'category' if comparison.several else ''
  found = [Chart('intervals', interval_title(comparison), UP, heading, height)]
  plot_intervals(found[0].axes, comparison)
  for measure in PAIRED:
    chart = Chart(measure, images_title(measure), ACROSS, UP)
    plot_images(chart.axes, comparison, measure)
    found.append(chart)
  return found


def _rows_height(comparison: Comparison) -> float:
  """Returns the inches that the intervals take."""
  return len(comparison.figures) * (0.12 + 0.1 * len(comparison.others))


def interval_title(comparison: Comparison) -> str:
  """Returns what the intervals are of."""
  return f'{TITLES[INTERVAL_OF]} minus that of {comparison.names[0]}, {CONFIDENCE:.0%} intervals'


def images_title(measure: str) -> str:
  """Returns what the differences by image are of."""
  return f'{PAIRED[measure]}: difference by image'


def plot_intervals(axes: 'Axes', comparison: Comparison) -> None:
  """Plots the difference of each run and category, and its interval where it has one."""
  for run in comparison.others:
    for place, category in enumerate(comparison.figures):
      row = place + 0.6 * (run / len(comparison.runs) - 0.5)
      value = comparison.difference(category, run, INTERVAL_OF)
      label = '_' if place else comparison.names[run]
      axes.plot(comparison.intervals[category, run], [row, row], color=colour(run))
      axes.plot([value], [row], 'o', color=colour(run), label=label)
  axes.axvline(0, color=charts.GREY, linestyle=':')
  axes.locator_params(axis='x', nbins=5)
  titles = {ALONE: '', EVERY: 'mean'}
  labels = [titles.get(category, category) for category in comparison.figures]
  axes.set_yticks(range(len(labels)), labels)
  axes.set_ylim(len(labels) - 0.5, -0.5)  # the first one on top


def plot_images(axes: 'Axes', comparison: Comparison, measure: str) -> None:
  """Plots the differences of all images by a measure, the largest first."""
  for test in comparison.tests:
    if (test.measure, test.category) == (measure, comparison.whole):
      values = np.sort(test.differences[~np.isnan(test.differences)])[::-1]
      label = f'{comparison.names[test.run]}: {test.found.better} better, {test.found.worse} worse'
      axes.plot(np.arange(1, len(values) + 1), values, '.-', color=colour(test.run), label=label)
  axes.axhline(0, color=charts.GREY, linestyle=':')


def colour(run: int) -> str:
  """Returns the colour of a run but the first."""
  return charts.COLOURS[(run - 1) % len(charts.COLOURS)]
