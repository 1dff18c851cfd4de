"""How long images wait for their verdict: quantiles of the latest ones and of all."""

import collections
import math

import numpy as np

# The latest so many are shown while images come.
LATEST = 500
# All are counted by their logarithm, in steps of so much.
STEP = 0.01


class Latency:
  """Seconds from arrival to verdict, in memory that does not grow."""

  def __init__(self) -> None:
    self._latest: collections.deque[float] = collections.deque(maxlen=LATEST)
    self._counts: collections.Counter[int] = collections.Counter()

  def add(self, seconds: float) -> None:
    """Counts an image."""
    self._latest.append(seconds)
    self._counts[round(math.log(max(seconds, 1e-6)) / STEP)] += 1

  def latest(self, share: float) -> float:
    """Returns the seconds within which a share of the latest images had a verdict; NaN: none."""
    return float(np.quantile(self._latest, share)) if self._latest else math.nan

  def of_all(self, share: float) -> float:
    """Returns the same of all images, within one percent; NaN where there is none."""
    left = share * self._counts.total()
    for step, count in sorted(self._counts.items()):
      left -= count
      if left <= 0:
        return math.exp(step * STEP)
    return math.nan


def text(seconds: float) -> str:
  """Returns seconds as '12 ms' or '3.4 s'; '-' for NaN."""
  if math.isnan(seconds):
    return '-'
  return f'{1e3 * seconds:.0f} ms' if seconds < 1 else f'{seconds:.1f} s'
