"""Whether images look like those a detector was made from: light, camera and focus may change.

Statistics are those of `appearance` and, of each scale, the mean norm of an image's embeddings.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Statistics = Mapping[str, np.ndarray]

# The latest so many images are compared together.
WINDOW = 100

# How much the normal images' range is widened, in 1 / (n + 1) of it: few images do not show it all.
WIDENING = 3.0

# A batch of fewer images is not compared as one, and how unlikely a difference must be by chance.
BATCH, CHANCE = 10, 1e-4

# The normal images' own drift is that of so many runs of files.
RUNS = 5


def limits(normal: np.ndarray) -> tuple[float, float]:
  """Returns the range of a statistic f[n] of normal images, widened."""
  low, high = float(np.min(normal)), float(np.max(normal))
  margin = WIDENING / (len(normal) + 1) * (high - low)
  return low - margin, high + margin


def outside(normal: Statistics, found: Statistics) -> list[tuple[str, ...]]:
  """Returns texts for each image, one for each statistic outside of the normal images' range.

  Args:
    normal: f[n] each, by name.
    found: f[N] each, of the same names.
  """
  texts: list[list[str]] = [[] for _ in range(len(next(iter(found.values()))))]
  for name, values in found.items():
    low, high = limits(normal[name])
    for index in np.flatnonzero((values < low) | (values > high)):
      side = 'below' if values[index] < low else 'above'
      texts[index].append(
        f'{name} {values[index]:.4g} is {side} that of all {len(normal[name])} normal images '
        f'({np.min(normal[name]):.4g} to {np.max(normal[name]):.4g})'
      )
  return [tuple(text) for text in texts]


def of_batch(normal: Statistics, found: Statistics) -> list[str]:
  """Returns a text for each statistic in which N images together are unlike the normal ones.

  By the two-sample Kolmogorov-Smirnov test, with a chance of CHANCE over all statistics for images
  like the normal ones; fewer than BATCH images are not judged. The test takes images to be
  independent, and those of few scenes, parts or hours are not: so the batch must also be at least
  as far from the normal images as any run of them is from the others.

  Args:
    normal: f[n] each, by name, in the order of the files.
    found: f[N] each, of names among these.
  """
  from scipy import stats  # a third of a second, which not every process needs

  texts = []
  for name, values in found.items():
    if len(values) < BATCH:
      continue
    tested = stats.ks_2samp(values, normal[name])
    if tested.pvalue < CHANCE / len(found) and tested.statistic >= drift(normal[name]):
      texts.append(
        f'{name} of these {len(values)} images (median {np.median(values):.4g}) is not that of the '
        f'normal ones (median {np.median(normal[name]):.4g}): p = {tested.pvalue:.1g}'
      )
  return texts


def drift(normal: np.ndarray) -> float:
  """Returns how far the normal images f[n] drift: the largest distance of a run from the others.

  The distance is that of Kolmogorov and Smirnov, between a fifth of the images and the rest.
  """
  from scipy import stats

  runs = np.array_split(normal, min(RUNS, len(normal)))
  others = [np.concatenate(runs[:i] + runs[i + 1 :]) for i in range(len(runs))] if runs[1:] else []
  pairs = zip(runs, others, strict=False)
  return max((stats.ks_2samp(*pair, method='asymp').statistic for pair in pairs), default=0.0)


def warn(texts: Sequence[str]) -> str:
  """Returns one line of what `of_batch` found."""
  return 'other light, camera or focus than in training? ' + '; '.join(texts)


class Window:
  """The latest images, compared with normal ones each time that BATCH more have come.

  Attributes:
    texts: what was found of them last, see `of_batch`.
  """

  def __init__(self, normal: Statistics):
    self._normal = normal
    self._latest: dict[str, np.ndarray] = {}
    self._new = 0
    self.texts: list[str] = []

  def take(self, found: Statistics) -> bool:
    """Takes f[N] each of N images; returns whether they were compared."""
    for name, values in found.items():
      kept = np.concatenate([self._latest.get(name, values[:0]), values])
      self._latest[name] = kept[-WINDOW:]
    self._new += len(next(iter(found.values())))
    if self._new < BATCH:
      return False
    self._new = 0
    self.texts = of_batch(self._normal, self._latest)
    return True
