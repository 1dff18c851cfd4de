"""The page of an evaluation: labels, masks and metrics are known."""

import functools
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.reporting.html import measured_curves, pictures, run_facts
from patch_svdd_jax.reporting.html.page import (
  ANOMALOUS,
  NORMAL,
  Compared,
  FiguresRow,
  Headline,
  Item,
  Page,
  Table,
)

HEADLINES = (*metrics.AUROCS, 'aupro_30')
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
  found: Inspection | None = None,
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
    threshold: of the last map's scores, above which an image is an alarm.
    found: what else is known of the images where the detector is calibrated.
    warnings: what a reader should know first.
  """
  name = last(evaluation)
  scores, labels = evaluation.scores.images[name], split.labels
  compared = {words(other): each for other, each in others.items()}
  by_truth = {NORMAL: scores[~labels], ANOMALOUS: scores[labels]}
  return Page(
    title=title,
    items=items(split, evaluation, limits, threshold, found),
    scores={kind: members for kind, members in by_truth.items() if len(members)},
    map_name=name,
    limits=limits,
    threshold=threshold,
    warnings=warnings,
    headlines=headlines(evaluation, compared),
    tables=tables(evaluation, compared),
    curves=measured_curves.make_charts(split, {name: evaluation} | compared, name, threshold),
    training=run_facts.training_charts(history),
    timing=run_facts.timing(evaluation.timing),
    settings=run_facts.settings(config) if config else (),
  )


def last(evaluation: Evaluation) -> str:
  """The name of the map that is shown."""
  return list(evaluation.maps)[-1]


def items(
  split: Split,
  evaluation: Evaluation,
  limits: tuple[float, float],
  threshold: Threshold | None,
  found: Inspection | None,
) -> list[Item]:
  """All images with their truth, and with what else is known."""
  name = last(evaluation)
  maps, scores = evaluation.scores.maps[name], evaluation.scores.images[name]
  return [
    Item(
      name=split.names[i],
      score=float(scores[i]),
      views=functools.partial(pictures.views, split.images[i], truth(split, i), maps[i], limits),
      anomalous=bool(split.labels[i]),
      defect=split.defects[i],
      p_value=float(found.p_values[i]) if found else None,
      alarm=bool(scores[i] > threshold.value) if threshold else None,
      regions=found.regions[i] if found else (),
      size=(int(split.sizes[i, 0]), int(split.sizes[i, 1])),
      warnings=found.warnings[i] if found else (),
    )
    for i in range(len(split))
  ]


def truth(split: Split, index: int) -> np.ndarray | str:
  """What is to be outlined in an image, or why nothing is."""
  if not split.labels[index]:
    return 'normal'
  return split.masks[index] if split.has_mask[index] else 'no mask'


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
  """Of maps, and of categories and defect types for the last map, each with what is compared."""
  name, compared = last(evaluation), {'': evaluation, **others}
  of_maps = _rows({of: each.maps for of, each in compared.items()})
  of_categories = _rows({of: each.per_category.get(name, {}) for of, each in compared.items()})
  of_types = _rows({of: each.per_defect[name] for of, each in compared.items()})
  beside = "its category's" if evaluation.per_category else 'all'
  title = f'Types of defect, each against {beside} normal images ({name})'
  found = [
    Table('maps', 'Maps', 'map', of_maps, NOTE),
    Table('categories', f'Categories ({name})', 'category', of_categories),
    Table('defects', title, 'type of defect', of_types),
  ]
  return [table for table in found if table.rows]


def _rows(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[FiguresRow]:
  """All figures by name; those of what is compared with, which has a name of its own, after it."""
  return [
    FiguresRow(f'{of} {name}'.lstrip(), figures, compared=bool(of))
    for of, all_figures in measured.items()
    for name, figures in all_figures.items()
  ]


def words(name: str) -> str:
  """The name of what was measured beside, as text."""
  return name.replace('_', ' ')
