"""Two runs on the same images: is one of them better, or may it be chance?"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

# Numbers that are drawn at a time, to bound memory.
_TOGETHER = 2**22


class SignedRank(NamedTuple):
  """A Wilcoxon signed-rank test.

  Attributes:
    images: pairs that were compared.
    better: of them, those with a positive difference.
    worse: those with a negative one; the others are equal.
    median: of the differences.
    p_value: two-sided; NaN where no pair differs.
  """

  images: int
  better: int
  worse: int
  median: float
  p_value: float


def signed_rank(differences: np.ndarray) -> SignedRank:
  """Tests whether paired differences are symmetric about zero (Wilcoxon 1945).

  Pairs that do not differ say nothing of the sign and are left out, as Wilcoxon did. With up to 50
  others p is exact, by all 2^n signs; where some are equal in size it is so up to 13, and beyond
  that by the normal distribution, its variance corrected for these ties.

  Args:
    differences: f64[N]; NaN, which is no difference of a pair, is left out.
  """
  known = differences[~np.isnan(differences)]
  better, worse = int(np.count_nonzero(known > 0)), int(np.count_nonzero(known < 0))
  median = float(np.median(known)) if known.size else float('nan')
  # Exact methods are for differences of which none is zero.
  p_value = float(stats.wilcoxon(known[known != 0]).pvalue) if better or worse else float('nan')
  return SignedRank(known.size, better, worse, median, p_value)


def rank_differences(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Returns by how much the other run ranks each image better, f64[N] in [-1, 1].

  Scores of different detectors are not on one scale, ranks are: the rank of an image is the share
  of the other N - 1 images of its own run that score lower, those that score the same counting one
  half. The difference of the two ranks has its sign changed for normal images, which are ranked
  better where they are lower: positive is better for all.

  Its mean over the images is 2 n m / (N (N - 1)) times the difference of the AUROCs, of n normal
  and m anomalous images. The ranks are those among all images, not those among the other class
  alone: there, one image of that class that moves shifts all ranks one way, and a signed-rank test
  takes that for so many images which agree, and finds differences of equally good runs far too
  often. By ranks among all images, p falls below 5 % for 5 % of such pairs of runs at most, and for
  fewer where both separate the classes well.

  Args:
    labels: bool[N], True for anomalous images.
    one: f64[N], scores of the first run; all is NaN where one is unknown, or N is 1.
    other: f64[N], those of the other run.
  """
  if len(labels) < 2 or np.isnan(one).any() or np.isnan(other).any():
    return np.full(len(labels), np.nan)
  # Divided last: as multiples of one half, equal differences are equal.
  gained = stats.rankdata(other) - stats.rankdata(one)
  differences: np.ndarray = np.where(labels, gained, -gained) / (len(labels) - 1)
  return differences


def resampled(labels: np.ndarray, resamples: int, seed: Sequence[int]) -> Iterator[np.ndarray]:
  """Yields how often samples have each image, i64[r, N], so many at a time; R in all.

  A sample has as many normal and as many anomalous images as there are, drawn with replacement
  from those of their class.

  Args:
    labels: bool[N], True for anomalous images.
    resamples: R.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  together = max(1, _TOGETHER // len(labels))
  for start in range(0, resamples, together):
    counts = np.empty((min(together, resamples - start), len(labels)), np.int64)
    for members in (~labels, labels):
      size = np.count_nonzero(members)
      counts[:, members] = rng.multinomial(size, np.full(size, 1 / size), len(counts))
    yield counts


def resampled_aurocs(
  labels: np.ndarray, scores: np.ndarray, resamples: int, seed: Sequence[int]
) -> np.ndarray:
  """Returns the image AUROC of several runs in samples of the images, f64[runs, R].

  Each sample is the same for all runs, so differences of rows are those of pairs. All is NaN where
  a class has fewer than two images, which resampling cannot vary, or a score is unknown.

  Args:
    labels: bool[N], True for anomalous images.
    scores: f64[runs, N].
    resamples: R.
    seed: of the draws.
  """
  if min(np.count_nonzero(labels), np.count_nonzero(~labels)) < 2 or np.isnan(scores).any():
    return np.full((len(scores), resamples), np.nan)
  samples = [
    [_weighted_auroc(labels, each, counts) for each in scores]
    for counts in resampled(labels, resamples, seed)
  ]
  return np.concatenate(samples, axis=1)


def _weighted_auroc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns the AUROC, f64[r], where counts[r, N] say how often each image is there.

  The probability that an anomalous image scores above a normal one, ties counting one half.
  """
  order = np.argsort(scores[~labels])
  normal, found = scores[~labels][order], counts[:, labels]
  # Of normal images up to each place, by rising score.
  sums = np.pad(np.cumsum(counts[:, ~labels][:, order], axis=1), ((0, 0), (1, 0)))
  below, at_most = (np.searchsorted(normal, scores[labels], side) for side in ('left', 'right'))
  halves = np.sum(found * (sums[:, below] + sums[:, at_most]), axis=1)
  aurocs: np.ndarray = halves / (2.0 * len(normal) * np.count_nonzero(labels))
  return aurocs


def interval(values: np.ndarray) -> tuple[float, float]:
  """Returns the percentile interval of what was found in samples f64[R] (Efron 1979)."""
  low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
  return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns p-values corrected for how many they are (Holm 1979).

  The probability that any true null hypothesis has one below a level is at most that level, however
  the tests depend on each other. NaN, of a test that could not be made, stays and does not count.
  """
  found = np.array(p_values, np.float64)
  order = [index for index in np.argsort(found) if not np.isnan(found[index])]
  largest = 0.0
  for place, index in enumerate(order):
    largest = max(largest, (len(order) - place) * found[index])
    found[index] = min(1.0, largest)
  return [float(value) for value in found]
