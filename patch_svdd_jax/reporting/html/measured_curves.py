"""Curves of what was measured on labelled images, with the areas that the metrics are."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.evaluation.metric_curves import (
  Curve,
  precision_recall_curve,
  pro_curve,
  roc_curve,
  up_to,
)
from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Chart

if TYPE_CHECKING:
  from matplotlib.axes import Axes

PRO_LIMIT = 0.3  # of the false positive rate, that of aupro_30

# What is plotted, by the metric that is the area under it: name, title, and titles of the axes.
_CHARTS = {
  'image_auroc': (
    'image-roc',
    'Image ROC',
    'normal images called anomalous',
    'anomalous images found',
  ),
  'image_ap': (
    'image-precision-recall',
    'Image precision and recall',
    'recall: anomalous images found',
    'precision: found among called',
  ),
  'pixel_auroc': (
    'pixel-roc',
    'Pixel ROC',
    'normal pixels called anomalous',
    'anomalous pixels found',
  ),
  'aupro_30': (
    'pro',
    'Per-region overlap (PRO)',
    'normal pixels called anomalous',
    'share of a region found, mean',
  ),
}


def make_charts(
  split: Split, measured: Mapping[str, Evaluation], name: str, threshold: Threshold | None
) -> list[Chart]:
  """Draws image ROC and precision-recall, pixel ROC and PRO; none that lacks one of two classes.

  Args:
    split: the images that were scored.
    measured: evaluations by what the legend calls them, first the one that the page is about.
    name: of the map.
    threshold: of the verdicts, marked in the curves of images.
  """
  labels, known = split.labels, split.has_mask
  masks = split.masks[known]
  regions = None if split.regions is None else split.regions[known]
  inside = slice(None) if regions is None else regions
  # By the metric that is its area.
  curves: dict[str, Callable[[Scores], Curve]] = {
    'image_auroc': lambda scores: roc_curve(labels, scores.images[name]),
    'image_ap': lambda scores: precision_recall_curve(labels, scores.images[name]),
    'pixel_auroc': lambda scores: roc_curve(masks[inside], scores.maps[name][known][inside]),
    'aupro_30': lambda scores: up_to(
      pro_curve(masks, scores.maps[name][known], regions), PRO_LIMIT
    ),
  }
  marks: dict[str, tuple[float, float]] = {}
  if threshold and labels.any() and not labels.all():
    alarms = next(iter(measured.values())).scores.images[name] > threshold.value
    marks = _at_threshold(labels, alarms)
  found = []
  for metric, titles in _CHARTS.items():
    lines = {
      f'{of}: {metrics.TITLES[metric]} {each.maps[name][metric]:.4f}': curves[metric](each.scores)
      for of, each in measured.items()
    }
    if all(line.x.size for line in lines.values()):
      chart = Chart(*titles)
      # A line along the top is not cut in half.
      chart.axes.set(xlim=(0, PRO_LIMIT if metric == 'aupro_30' else 1), ylim=(0, 1.03))
      _plot(chart.axes, lines, marks.get(metric), chance=metric.endswith('auroc'))
      found.append(chart)
  return found


def _plot(
  axes: 'Axes', lines: Mapping[str, Curve], mark: tuple[float, float] | None, *, chance: bool
) -> None:
  """Plots curves by their labels, the first above those that it is compared with."""
  for number, (label, curve) in enumerate(lines.items()):
    colour = charts.COLOURS[number % len(charts.COLOURS)]
    line, order = ('--', 2) if number else ('-', 3)
    axes.plot(curve.x, curve.y, line, color=colour, zorder=order, clip_on=False, label=label)
  if chance:
    axes.plot([0, 1], [0, 1], '--', color=charts.GREY, zorder=1.5, label='chance')
  if mark:
    look: dict[str, Any] = {'color': charts.RED, 'markeredgecolor': 'white', 'markersize': 8}
    axes.plot(*mark, 'o', **look, zorder=4, clip_on=False, label='threshold')


def _at_threshold(labels: np.ndarray, alarms: np.ndarray) -> dict[str, tuple[float, float]]:
  """Marks the threshold on the curves of images; on precision only if anything is called."""
  recall = float(alarms[labels].mean())
  marks = {'image_auroc': (float(alarms[~labels].mean()), recall)}
  if alarms.any():
    marks['image_ap'] = (recall, float(labels[alarms].mean()))
  return marks
