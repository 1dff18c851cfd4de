"""The images of a page: which are shown, in what groups, and how their scores are distributed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Chart
from patch_svdd_jax.reporting.html.page import FALSE_ALARM, MISSED, Item

MOST_ITEMS = 200  # of about 25 kB each


class Choice(NamedTuple):
  """A value to filter by, and how many of the items shown have it."""

  value: str
  images: int


class Verdicts(NamedTuple):
  """How many images of a kind are alarms, and how many there are."""

  kind: str
  alarms: int
  images: int


def select(items: Sequence[Item], most: int = MOST_ITEMS) -> list[Item]:
  """Selects the items to show: all errors, then the highest scores; by falling score."""
  by_score = sorted(items, key=lambda item: (-item.score, item.name))
  kept = sorted(by_score, key=lambda item: not item.error)[:most]
  return sorted(kept, key=lambda item: (-item.score, item.name))


def types(items: Iterable[Item]) -> list[Choice]:
  """Returns the types of defects, good ones first; none where they are unknown."""
  counts = Counter(item.defect for item in items if item.defect)
  return [Choice(*each) for each in sorted(counts.items(), key=lambda c: (c[0] != 'good', c[0]))]


def verdicts(items: Iterable[Item]) -> list[Choice]:
  """Returns the verdicts, and the errors where the truth is known."""
  judged = [item for item in items if item.alarm is not None]
  counts = Counter(item.verdict for item in judged) + Counter(item.error for item in judged)
  values = ['alarm', 'pass'] * bool(judged)
  if any(item.anomalous is not None for item in judged):
    values += [MISSED, FALSE_ALARM]
  return [Choice(value, counts[value]) for value in values]


def tally(scores: Mapping[str, np.ndarray], threshold: Threshold) -> list[Verdicts]:
  """Returns the verdicts on all images, by what they are."""
  return [
    Verdicts(kind, int(np.count_nonzero(members > threshold.value)), len(members))
    for kind, members in scores.items()
  ]


def score_chart(scores: Mapping[str, np.ndarray], threshold: Threshold | None) -> Chart:
  """Draws how the scores of all images are distributed, by what they are.

  The histograms have the same bins, and leave infinite scores out.
  """
  finite = {kind: members[np.isfinite(members)] for kind, members in scores.items()}
  together = np.concatenate([*finite.values()])
  bins = len(np.histogram_bin_edges(together, 'auto')) - 1
  edges = np.histogram_bin_edges(together, min(max(bins, 10), 40)).tolist()
  chart = Chart('scores', 'Image scores', 'score', 'images')
  chart.axes.locator_params(axis='y', integer=True)
  for (kind, members), colour, line in zip(
    finite.items(), charts.COLOURS, ('-', '--'), strict=False
  ):
    chart.axes.hist(
      members,
      edges,
      histtype='stepfilled',
      facecolor=(colour, 0.25),
      edgecolor=colour,
      linestyle=line,
      linewidth=1.5,
      label=f'{kind} ({len(members):,})',
    )
  if threshold:
    label = f'threshold {threshold.value:.4g}'
    chart.axes.axvline(
      threshold.value, color=charts.RED, linestyle=':', linewidth=1.75, label=label
    )
  return chart
