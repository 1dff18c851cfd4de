"""Curves of what was measured on labelled images, with the areas that the metrics are."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.detector import Scores
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.evaluation.metric_curves import (
  Curve,
  precision_recall_curve,
  pro_curve,
  roc_curve,
  up_to,
)
from patch_svdd_jax.reporting.html.charts import COLOURS, GREY, Chart, Line, Mark, Range

PRO_LIMIT = 0.3  # of the false positive rate, that of aupro_30

_UNIT = Range(0.0, 1.0)
_ROOM = Range(0.0, 1.03)  # a line along the top is not cut in half
_CHANCE = Line('chance', np.array([0.0, 1.0]), np.array([0.0, 1.0]), GREY, dashed=True)

# What is plotted, by the metric that is the area under it; without the curves.
_CHARTS = {
  'image_auroc': Chart(
    'image-roc',
    'Image ROC',
    'normal images called anomalous',
    'anomalous images found',
    _UNIT,
    _ROOM,
    [_CHANCE],
  ),
  'image_ap': Chart(
    'image-precision-recall',
    'Image precision and recall',
    'recall: anomalous images found',
    'precision: found among called',
    _UNIT,
    _ROOM,
  ),
  'pixel_auroc': Chart(
    'pixel-roc',
    'Pixel ROC',
    'normal pixels called anomalous',
    'anomalous pixels found',
    _UNIT,
    _ROOM,
    [_CHANCE],
  ),
  'aupro_30': Chart(
    'pro',
    'Per-region overlap (PRO)',
    'normal pixels called anomalous',
    'share of a region found, mean',
    Range(0.0, PRO_LIMIT),
    _ROOM,
  ),
}


def charts(
  split: Split, measured: Mapping[str, Evaluation], name: str, threshold: Threshold | None
) -> list[Chart]:
  """Image ROC and precision-recall, pixel ROC and PRO; none that lacks one of the two classes.

  Args:
    split: the images that were scored.
    measured: evaluations by what the legend calls them, first the one that the page is about.
    name: of the map.
    threshold: of the verdicts, marked in the curves of images.
  """
  labels, known = split.labels, split.has_mask
  masks = split.masks[known]
  # By the metric that is its area.
  curves: dict[str, Callable[[Scores], Curve]] = {
    'image_auroc': lambda scores: roc_curve(labels, scores.images[name]),
    'image_ap': lambda scores: precision_recall_curve(labels, scores.images[name]),
    'pixel_auroc': lambda scores: roc_curve(masks, scores.maps[name][known]),
    'aupro_30': lambda scores: up_to(pro_curve(masks, scores.maps[name][known]), PRO_LIMIT),
  }
  marks: dict[str, list[Mark]] = {}
  if threshold and labels.any() and not labels.all():
    alarms = next(iter(measured.values())).scores.images[name] > threshold.value
    marks = _at_threshold(labels, alarms)
  found = []
  for metric, chart in _CHARTS.items():
    lines = [
      _line(label, each.maps[name], metric, curves[metric](each.scores), number)
      for number, (label, each) in enumerate(measured.items())
    ]
    lines = [line for line in lines if line.x.size]
    if lines:
      shown = [*lines, *chart.lines]
      found.append(dataclasses.replace(chart, lines=shown, marks=marks.get(metric, ())))
  return found


def _line(label: str, figures: Mapping[str, float], metric: str, curve: Curve, number: int) -> Line:
  """A curve with its area in the legend; all but the first are compared with."""
  label = f'{label}: {metrics.TITLES[metric]} {figures[metric]:.4f}'
  return Line(label, curve.x, curve.y, number % COLOURS, dashed=number > 0)


def _at_threshold(labels: np.ndarray, alarms: np.ndarray) -> dict[str, list[Mark]]:
  """Where the threshold lies on the curves of images; on precision only if anything is called."""
  recall = float(alarms[labels].mean())
  marks = {'image_auroc': [Mark('threshold', float(alarms[~labels].mean()), recall)]}
  if alarms.any():
    marks['image_ap'] = [Mark('threshold', recall, float(labels[alarms].mean()))]
  return marks
