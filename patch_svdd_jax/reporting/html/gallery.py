"""The images of a page: which are shown, in what groups, and how their scores are distributed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.reporting.html.charts import Chart, Range, Rule, around, histograms
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
  """The items to show: all errors first, then the highest scores; by falling score, then name."""
  by_score = sorted(items, key=lambda item: (-item.score, item.name))
  kept = sorted(by_score, key=lambda item: not item.error)[:most]
  return sorted(kept, key=lambda item: (-item.score, item.name))


def types(items: Iterable[Item]) -> list[Choice]:
  """The types of defects, good ones first; none where they are unknown."""
  counts = Counter(item.defect for item in items if item.defect)
  return [Choice(*each) for each in sorted(counts.items(), key=lambda c: (c[0] != 'good', c[0]))]


def verdicts(items: Iterable[Item]) -> list[Choice]:
  """The verdicts, and the errors where the truth is known; none where nothing was judged."""
  judged = [item for item in items if item.alarm is not None]
  counts = Counter(item.verdict for item in judged) + Counter(item.error for item in judged)
  values = ['alarm', 'pass'] * bool(judged)
  if any(item.anomalous is not None for item in judged):
    values += [MISSED, FALSE_ALARM]
  return [Choice(value, counts[value]) for value in values]


def tally(scores: Mapping[str, np.ndarray], threshold: Threshold) -> list[Verdicts]:
  """The verdicts on all images, by what they are."""
  return [
    Verdicts(kind, int(np.count_nonzero(members > threshold.value)), len(members))
    for kind, members in scores.items()
  ]


def score_chart(scores: Mapping[str, np.ndarray], threshold: Threshold | None) -> Chart:
  """How the scores of all images are distributed, by what they are."""
  bars = histograms(scores)
  rules = [Rule(f'threshold {threshold.value:.4g}', threshold.value)] if threshold else []
  tallest = max(int(each.counts.max()) for each in bars)
  ends = [each.edges[[0, -1]] for each in bars] + [np.array([rule.value for rule in rules])]
  return Chart(
    name='scores',
    title='Image scores',
    x_title='score',
    y_title='images',
    x_limits=around(np.concatenate(ends)),
    y_limits=Range(0.0, 1.06 * max(tallest, 1)),
    bars=bars,
    rules=rules,
  )
