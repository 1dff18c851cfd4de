"""The page of an evaluation: labels, masks and metrics are known."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.data.duplicates import Duplicate
from patch_svdd_jax.data.report import DataReport
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.evaluation.training_gain import TRAINED, TrainingGain
from patch_svdd_jax.reporting import threshold_table
from patch_svdd_jax.reporting.compared import explain, words
from patch_svdd_jax.reporting.html import aupimo_section, measured_curves, pictures, run_facts
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

HEADLINES = (*metrics.AUROCS, 'aupro_30', 'aupimo')
NOTE = 'F1 and mIoU are at the threshold that is best for these test labels.'


@dataclasses.dataclass(frozen=True)
class ReportContext:
  """What is known of an evaluation besides its scores; what is absent is not shown.

  Attributes:
    title: of the page.
    config: the whole config.
    history: of training, as `monitoring.read` gives it.
    threshold: of the main map's scores, above which an image is an alarm.
    found: what else is known of the images where the detector is calibrated.
    warnings: what a reader should know first.
    copies: test images that are copies of normal ones.
    gain: what training gains on synthetic anomalies.
    data: what the files are that images and masks come from.
  """

  title: str = 'Evaluation'
  config: ml_collections.ConfigDict | None = None
  history: Sequence[Mapping[str, float]] = ()
  threshold: Threshold | None = None
  found: Inspection | None = None
  warnings: Sequence[str] = ()
  copies: Sequence[Duplicate] = ()
  gain: TrainingGain | None = None
  data: DataReport = dataclasses.field(default_factory=DataReport)


def make(
  split: Split,
  evaluation: Evaluation,
  others: Mapping[str, Evaluation],
  limits: tuple[float, float],
  context: ReportContext,
) -> Page:
  """Makes the page of the main map of an evaluation.

  Args:
    split: the N images that were scored.
    evaluation: of them.
    others: what it is compared with, by name.
    limits: (low, high) of the colour scale.
    context: what else is shown.
  """
  name = evaluation.main_map
  scores, labels = evaluation.scores.images[name], split.labels
  compared = {words(other): each for other, each in others.items()}
  measured = {name: evaluation} | compared
  by_truth = {NORMAL: scores[~labels], ANOMALOUS: scores[labels]}
  shown = items(split, evaluation, limits, context.found)
  return Page(
    title=context.title,
    items=shown,
    scores={kind: members for kind, members in by_truth.items() if len(members)},
    map_name=name,
    limits=limits,
    threshold=context.threshold,
    warnings=context.warnings,
    synthetic=synthetic(context.gain, name) if context.gain else None,
    headlines=headlines(evaluation, compared),
    tables=tables(evaluation, compared, f'{NOTE} {explain(others)}'.rstrip()),
    curves=measured_curves.make_charts(split, measured, name, context.threshold),
    thresholds=threshold_table.make(evaluation.thresholds, name),
    aupimo=aupimo_section.make(split, evaluation, shown),
    training=run_facts.training_charts(context.history),
    data=context.data,
    timing=run_facts.timing(evaluation.timing, evaluation.stages),
    settings=run_facts.settings(context.config) if context.config else (),
  )


def items(
  split: Split,
  evaluation: Evaluation,
  limits: tuple[float, float],
  found: Inspection | None,
) -> list[Item]:
  """Returns all images with their truth, and with what else is known."""
  name = evaluation.main_map
  maps, scores = evaluation.scores.maps[name], evaluation.scores.images[name]
  if found:
    predictions = found.of_each(split)
  else:
    predictions = [Prediction(*each) for each in zip(split.names, scores.tolist(), strict=True)]
  return [
    Item(
      **vars(predictions[i]),
      views=functools.partial(
        pictures.views, split.images[i], truth(split, i), maps[i], limits, split.region_of(i)
      ),
      anomalous=bool(split.labels[i]),
      defect=split.defects[i],
    )
    for i in range(len(split))
  ]


def truth(split: Split, index: int) -> np.ndarray | str:
  """Returns the regions to be outlined in an image, or the reason why there are none."""
  if not split.labels[index]:
    return 'normal'
  return split.masks[index] if split.has_mask[index] else 'no mask'


def headlines(evaluation: Evaluation, others: Mapping[str, Evaluation]) -> list[Headline]:
  """Returns the figures that come first, of those that are defined."""
  name = evaluation.main_map
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


def tables(evaluation: Evaluation, others: Mapping[str, Evaluation], note: str) -> list[Table]:
  """Returns tables of maps, and of categories and defect types for the main map."""
  name, compared = evaluation.main_map, {'': evaluation, **others}
  of_maps = _rows({of: each.maps for of, each in compared.items()})
  of_categories = _rows({of: each.per_category.get(name, {}) for of, each in compared.items()})
  of_lights = _rows({of: each.per_lighting.get(name, {}) for of, each in compared.items()})
  of_types = _rows({of: each.per_defect[name] for of, each in compared.items()})
  beside = "its category's" if evaluation.per_category else 'all'
  title = f'Types of defect, each against {beside} normal images ({name})'
  found = [
    Table('maps', 'Maps', 'map', of_maps, note),
    Table('categories', f'Categories ({name})', 'category', of_categories),
    Table('defects', title, 'type of defect', of_types),
    Table('lights', f'Lights, each among its own images ({name})', 'light', of_lights),
  ]
  return [table for table in found if table.rows]


def synthetic(gain: TrainingGain, name: str) -> Table:
  """Returns the main map's figures on synthetic anomalies, beside those without training."""
  rows = [
    FiguresRow(system, figures, compared=system != TRAINED)
    for system, figures in gain.figures.items()
  ]
  note = (
    f'No label is needed: {gain.images} held-out normal images, as they are and with a piece '
    'pasted elsewhere, a blur, a smear, a scratch and a stain.'
  )
  return Table('synthetic', f'On synthetic anomalies ({name})', 'detector', rows, note)


def _rows(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[FiguresRow]:
  """Returns all figures by name, each followed by those it is compared with."""
  return [
    FiguresRow(f'{of} {name}'.lstrip(), figures, compared=bool(of))
    for of, all_figures in measured.items()
    for name, figures in all_figures.items()
  ]
