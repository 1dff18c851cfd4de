"""The images of a page: which are shown, in what groups, and how their scores are distributed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.html_report.charts import Chart, Limits, Rule, around, histograms
from patch_svdd_jax.html_report.page import FALSE_ALARM, MISSED, Item, Threshold

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


def tally(items: Sequence[Item]) -> list[Verdicts]:
  """The verdicts on all images, by the truth where it is known; none where nothing was judged."""
  judged = [item for item in items if item.alarm is not None]
  return [
    Verdicts(kind, sum(bool(item.alarm) for item in members), len(members))
    for kind, members in by_truth(judged).items()
  ]


def by_truth(items: Iterable[Item]) -> dict[str, list[Item]]:
  """Normal and anomalous images, and those of which it is unknown; only groups that there are."""
  groups: dict[str, list[Item]] = {'normal': [], 'anomalous': [], 'images': []}
  kinds = {False: 'normal', True: 'anomalous', None: 'images'}
  for item in items:
    groups[kinds[item.anomalous]].append(item)
  return {kind: members for kind, members in groups.items() if members}


def score_chart(items: Sequence[Item], threshold: Threshold | None) -> Chart:
  """How the image scores are distributed, by the truth where it is known."""
  groups = {
    kind: np.array([item.score for item in members], np.float64)
    for kind, members in by_truth(items).items()
  }
  bars = histograms(groups)
  rules = [Rule(f'threshold {threshold.score:.4g}', threshold.score)] if threshold else []
  tallest = max((int(each.counts.max()) for each in bars), default=0)
  ends = [each.edges[[0, -1]] for each in bars] + [np.array([rule.value for rule in rules])]
  return Chart(
    name='scores',
    title='Image scores',
    x_title='score',
    y_title='images',
    x_limits=around(np.concatenate(ends)),
    y_limits=Limits(0.0, 1.06 * max(tallest, 1)),
    bars=bars,
    rules=rules,
  )
