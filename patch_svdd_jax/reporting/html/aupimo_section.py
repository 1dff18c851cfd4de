"""AUPIMO on the page: how it is distributed over the images of each type, and the worst images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.evaluation import aupimo
from patch_svdd_jax.evaluation.evaluate import Evaluation
from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Chart
from patch_svdd_jax.reporting.html.page import Distribution, Fact, Item, Worst

MOST_WORST = 8
_MARGIN, _ROW = 1.1, 0.38  # inches, of all but the rows, and of each
_LONGEST_TYPE = 20  # letters


def make(split: Split, evaluation: Evaluation, items: Sequence[Item]) -> Distribution | None:
  """Makes the section of the main map's AUPIMO; None where no image has one.

  Args:
    split: the N images that were scored.
    evaluation: of them.
    items: the N images, as the gallery shows them.
  """
  name = evaluation.main_map
  values = evaluation.aupimo[name]
  measured = np.flatnonzero(~np.isnan(values)).tolist()
  if not measured:
    return None
  by_type: dict[str, list[float]] = {}
  for number in measured:
    by_type.setdefault(split.defects[number], []).append(float(values[number]))
  worst = sorted(measured, key=lambda number: (values[number], split.names[number]))
  found = aupimo.distribution(values)
  titles = 'first quartile', 'median', 'third quartile'
  return Distribution(
    chart=draw(name, {kind: by_type[kind] for kind in sorted(by_type)}),
    facts=[
      Fact('mean', 'mean', found['mean']),
      Fact('std', 'standard deviation', found['std']),
      *(
        Fact(title.replace(' ', '-'), title, value)
        for title, value in zip(titles, found['quartiles'], strict=True)
      ),
    ],
    images=found['images'],
    worst=[Worst(items[number], float(values[number])) for number in worst[:MOST_WORST]],
    note=_explain(int(np.count_nonzero(~split.labels)) * split.masks[0].size),
  )


def draw(name: str, by_type: dict[str, list[float]]) -> Chart:
  """Draws each image as a point, and each type's quartiles as a bar with the median."""
  title, height = f'AUPIMO of each image ({name})', _MARGIN + _ROW * len(by_type)
  chart = Chart('aupimo', title, 'AUPIMO', 'type of defect', height)
  axes = chart.axes
  for row, values in enumerate(by_type.values()):
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    labels = ('quartiles', 'median', 'image') if not row else (None,) * 3
    axes.plot([low, high], [row, row], color=charts.GREY, linewidth=5, alpha=0.5, label=labels[0])
    axes.plot(median, row, '|', color=charts.RED, markersize=14, zorder=4, label=labels[1])
    # Points beside each other lie at different heights, or would hide each other.
    heights = row + np.resize([0, 0.24, -0.24, 0.12, -0.12], len(values))
    look: dict[str, Any] = {
      'color': charts.COLOURS[0],
      'markersize': 3,
      'alpha': 0.6,
      'clip_on': False,
    }
    axes.plot(sorted(values), heights, 'o', **look, label=labels[2])
  axes.set(xlim=(0, 1), ylim=(len(by_type) - 0.5, -0.5))
  titles = [_drawable(kind) for kind in by_type]
  axes.set_yticks(range(len(by_type)), titles, parse_math=False, fontsize=9)
  return chart


def _drawable(text: str) -> str:
  """Returns the end of a text, without what cannot be drawn."""
  text = ''.join(each if each.isprintable() else '\ufffd' for each in text)
  return text if len(text) <= _LONGEST_TYPE else f'…{text[1 - _LONGEST_TYPE :]}'


def _explain(pixels: int) -> str:
  """Returns what AUPIMO is, in words, and which limits too few normal pixels set."""
  low, high = (round(1 / limit) for limit in aupimo.FPR_LIMITS)
  text = (
    f"The share of an image's defect that is found at thresholds at which 1 in {low:,} to 1 in "
    f'{high:,} pixels of normal images are called anomalous, on average over the logarithm of that '
    'rate.'
  )
  if pixels >= low:
    return text
  return (
    f'{text} The normal images have {pixels:,} pixels: at rates below 1 in {pixels:,} it is the '
    'share found without any false pixel.'
  )
