"""What it costs to choose a checkpoint without labels: all of them, measured on the test images."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.training import checkpoint_selection

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Test labels mark these checkpoints; nothing uses them.
BEST = {metric: f'best {title} by test labels' for metric, title in AUROCS.items()}
CHOSEN, FINAL = 'chosen', 'final'


class CheckpointRow(NamedTuple):
  """One checkpoint.

  Attributes:
    step: the checkpoint's.
    score: of the rule that chooses; None without held-out images.
    figures: test metrics of the main map, by name.
    marks: what it is, of CHOSEN, FINAL and BEST's values.
  """

  step: int
  score: float | None
  figures: Mapping[str, float]
  marks: tuple[str, ...]


def make(
  figures: Mapping[int, Mapping[str, float]],
  statistics: Mapping[int, Mapping[str, float] | None],
  chosen: int | None,
) -> list[CheckpointRow]:
  """Returns one row for each checkpoint, ascending.

  Args:
    figures: test metrics of the main map by step and name.
    statistics: of the held-out images by step.
    chosen: the step that the rule has chosen.
  """
  figures = dict(sorted(figures.items()))
  marked = {CHOSEN: chosen, FINAL: max(figures)} | {
    words: highest({step: found[metric] for step, found in figures.items()})
    for metric, words in BEST.items()
  }
  rows = []
  for step, found in figures.items():
    known = statistics[step]
    marks = tuple(words for words, at in marked.items() if at == step)
    rows.append(
      CheckpointRow(
        step, None if known is None else checkpoint_selection.score(known), found, marks
      )
    )
  return rows


def highest(values: Mapping[int, float]) -> int | None:
  """Returns the first step of the highest value; None where all are NaN."""
  there = {step: value for step, value in values.items() if not math.isnan(value)}
  return max(there, key=lambda step: there[step], default=None)


def draw(rows: Sequence[CheckpointRow]) -> 'Figure':
  """Draws test AUROCs and the rule's score over the steps; marked checkpoints have a line."""
  from matplotlib.figure import Figure  # it draws without a screen

  steps = [row.step for row in rows]
  figure = Figure(figsize=(7, 4.5), layout='constrained')
  panel = figure.subplots()
  for metric, title in AUROCS.items():
    panel.plot(steps, [row.figures[metric] for row in rows], marker='o', label=f'{title}, test')
  colours = {CHOSEN: 'black', FINAL: 'grey'}
  for row in rows:
    for mark in row.marks:
      if mark in colours:
        panel.axvline(row.step, color=colours[mark], linestyle=':', label=f'{mark}: {row.step}')
  panel.set(xlabel='step', ylabel='AUROC, of test labels')
  panel.grid(alpha=0.3)
  lines, labels = panel.get_legend_handles_labels()
  scored = [row for row in rows if row.score is not None and math.isfinite(row.score)]
  if scored:
    other = panel.twinx()
    scores = [row.score or 0.0 for row in scored]
    lines += other.plot([row.step for row in scored], scores, 'C2s--')
    labels.append('score of held-out images')
    other.set_ylabel('score, of held-out normal images')
  figure.legend(lines, labels, loc='outside lower center', ncols=2)
  return figure
