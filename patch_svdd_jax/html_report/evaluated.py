"""The page of an evaluation: labels, masks and metrics are known."""

import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax import metrics
from patch_svdd_jax.data import Split
from patch_svdd_jax.evaluation import Evaluation
from patch_svdd_jax.html_report import measured_curves, run_facts
from patch_svdd_jax.html_report.page import Compared, Headline, Item, Page, Row, Table, Threshold

HEADLINES = ('image_auroc', 'pixel_auroc', 'aupro_30')
NOTE = 'F1 is at the threshold that is best for these test labels.'


def make(
  split: Split,
  evaluation: Evaluation,
  others: Mapping[str, Evaluation],
  limits: tuple[float, float],
  *,
  title: str,
  config: ml_collections.ConfigDict | None = None,
  history: Sequence[Mapping[str, float]] = (),
  threshold: Threshold | None = None,
  p_values: np.ndarray | None = None,
  warnings: Sequence[str] = (),
) -> Page:
  """The page of the last map of an evaluation, the product where there are several scales.

  Args:
    split: the N images that were scored.
    evaluation: of them.
    others: what it is compared with, by name.
    limits: (low, high) of the colour scale.
    title: of the page.
    config: the whole config.
    history: of training, as `monitoring.read` gives it.
    threshold: of the verdicts, on the last map's scores.
    p_values: f[N], of the images.
    warnings: what a reader should know first.
  """
  name = last(evaluation)
  compared = {words(other): each for other, each in others.items()}
  return Page(
    title=title,
    items=items(split, evaluation, threshold, p_values),
    map_name=name,
    limits=limits,
    threshold=threshold,
    warnings=warnings,
    headlines=headlines(evaluation, compared),
    tables=tables(evaluation, compared),
    curves=measured_curves.charts(split, {name: evaluation} | compared, name, threshold),
    training=run_facts.training_charts(history),
    timing=run_facts.timing(evaluation.timing),
    settings=run_facts.settings(config) if config else (),
  )


def last(evaluation: Evaluation) -> str:
  """The name of the map that is shown."""
  return list(evaluation.maps)[-1]


def items(
  split: Split, evaluation: Evaluation, threshold: Threshold | None, p_values: np.ndarray | None
) -> list[Item]:
  """All images with their truth, and with verdicts where there is a threshold."""
  name = last(evaluation)
  maps, scores = evaluation.scores.maps[name], evaluation.scores.images[name]
  return [
    Item(
      name=split.names[i],
      image=split.images[i],
      anomaly_map=maps[i],
      score=float(scores[i]),
      anomalous=bool(split.labels[i]),
      defect=split.defects[i],
      mask=split.masks[i] if split.labels[i] and split.has_mask[i] else None,
      p_value=None if p_values is None else float(p_values[i]),
      alarm=None if threshold is None else bool(scores[i] >= threshold.score),
    )
    for i in range(len(split))
  ]


def headlines(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> list[Headline]:
  """The figures that come first, of those that are defined."""
  name = last(evaluation)
  figures = evaluation.maps[name]
  return [
    Headline(
      metric,
      metrics.TITLES[metric],
      figures[metric],
      [Compared(other, each.maps[name][metric]) for other, each in others.items()],
    )
    for metric in HEADLINES
    if not math.isnan(figures[metric])
  ]


def tables(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> list[Table]:
  """One table of maps, and one of defect types for the last map, each with what is compared."""
  name = last(evaluation)
  of_maps = _rows({'': evaluation.maps} | {o: each.maps for o, each in others.items()})
  of_types = _rows(
    {'': evaluation.per_defect[name]}
    | {other: each.per_defect[name] for other, each in others.items()}
  )
  title = f'Types of defect, each against all normal images ({name})'
  found = [
    Table('maps', 'Maps', 'map', of_maps, NOTE),
    Table('defects', title, 'type of defect', of_types),
  ]
  return [table for table in found if table.rows]


def _rows(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
  """All figures by name; those of what is compared with, which has a name of its own, after it."""
  return [
    Row(f'{of} {name}'.lstrip(), figures, compared=bool(of))
    for of, all_figures in measured.items()
    for name, figures in all_figures.items()
  ]


def words(name: str) -> str:
  """The name of what was measured beside, as text."""
  return name.replace('_', ' ')
