"""From a score to a false-alarm rate: conformal p-values by normal images that were not learned.

A normal image's score is as likely to take any place among those of n other normal images as any
other place (they are exchangeable: same parts, same camera, same light), so

  p = (1 + number of the n scores that are at least as high) / (n + 1)

is at most a with a probability of at most a (Vovk, Gammerman & Shafer 2005, "Algorithmic Learning
in a Random World"). Nothing else is assumed of the scores. n images can ensure no rate below
1 / (n + 1). Pixels of an image are not exchangeable, images are: of a pixel the share of pixels
that are at least as high takes the place of the number, by which the expected share of a normal
image's pixels that are called anomalous is at most the rate (Angelopoulos et al. 2024, "Conformal
Risk Control", theorem 1).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.detection import region_of_interest

# Values of the pixels that are kept: the highest so many, and as many in a geometric series below.
KEPT = 1024


class Threshold(NamedTuple):
  """What is above `value` is called anomalous.

  Attributes:
    value: a score.
    rate: of false alarms, that is ensured or expected.
    ensured: whether it is; otherwise it is what the normal images had themselves.
  """

  value: float
  rate: float
  ensured: bool


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The scores of n normal images that a detector had not learned, by its main map.

  Attributes:
    scores: f64[n], rising, of images.
    levels: f64[M], rising, scores of pixels; the lowest of all and the highest of all are there.
    shares: f64[M], the share of an image's pixels that are at least as high as each level, the mean
      over images. Only pixels of their regions count.
    statistics: f64[.] each, of normal images, by the names of `distribution_shift`.
    pixel_moments: f64[2], mean and standard deviation of the scores of all pixels; NaN where the
      detector was saved before they were kept.
  """

  scores: np.ndarray
  levels: np.ndarray
  shares: np.ndarray
  statistics: Mapping[str, np.ndarray]
  pixel_moments: np.ndarray = dataclasses.field(default_factory=lambda: np.full(2, np.nan))

  @property
  def images(self) -> int:
    """How many normal images, n."""
    return len(self.scores)

  def p_values(self, scores: np.ndarray) -> np.ndarray:
    """Returns the p-value of each image score f[N], f64[N]."""
    below = np.searchsorted(self.scores, np.asarray(scores, np.float64))
    return (1 + self.images - below) / (self.images + 1)

  def threshold(self, rate: float) -> Threshold:
    """Returns the lowest threshold above which p is at most `rate`, or that of the lowest rate.

    Args:
      rate: share of normal images that may be called anomalous, in (0, 1).
    """
    # Rounded: .05 of 100 is 5, not 4.999...
    places = max(1, int(np.floor(np.round(rate * (self.images + 1), 9))))
    reached = places / (self.images + 1)
    return Threshold(float(self.scores[-places]), reached, reached <= rate + 1e-12)

  def pixel_threshold(self, rate: float) -> Threshold:
    """Returns the lowest one above which a pixel's p is at most `rate`.

    Where n images cannot ensure the rate, it is the one above which they had that share of pixels.

    Args:
      rate: share of a normal image's pixels that may be called anomalous, in (0, 1).
    """
    ensured = (1 + self.images * self.shares) / (self.images + 1)
    reached = ensured if (ensured <= rate).any() else self.shares
    if not (reached <= rate).any():
      return Threshold(float(self.levels[-1]), 0.0, ensured=False)
    first = int(np.argmax(reached <= rate))
    value = float(np.nextafter(self.levels[first], -np.inf))
    return Threshold(value, float(reached[first]), reached is ensured)


def calibrate(
  scores: np.ndarray,
  maps: np.ndarray,
  statistics: Mapping[str, np.ndarray],
  regions: np.ndarray | None = None,
) -> Calibration:
  """Returns the calibration by normal images.

  Args:
    scores: f[n], image scores, n >= 1.
    maps: f[n, H, W], their maps.
    statistics: of normal images, for `distribution_shift`.
    regions: bool[n, H, W], whose pixels alone count, some of each; None: all do.
  """
  pixels = region_of_interest.pixels(maps, regions)
  # Of large images too many to be copied as float64.
  values = np.concatenate([each.ravel() for each in pixels])
  values.sort()
  count = len(values)
  ranks = np.minimum(np.arange(1, KEPT + 1), count)  # from the highest
  ranks = np.unique(np.concatenate([ranks, np.geomspace(1, count, KEPT).astype(int)]))
  levels = np.unique(values[count - ranks])
  shares = (count - np.searchsorted(values, levels)) / count
  if len({each.size for each in pixels}) > 1:
    # Images are exchangeable, and not their pixels: each image weighs the same.
    shares = np.mean([share_above(each, levels) for each in pixels], axis=0)
  scores = np.sort(np.asarray(scores, np.float64))
  return Calibration(scores, levels.astype(np.float64), shares, statistics, moments(pixels))


def share_above(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Returns the share of an image's pixels that is at least as high as each level, f64[M]."""
  below = np.searchsorted(np.sort(pixels, axis=None), levels)
  shares: np.ndarray = (pixels.size - below) / pixels.size
  return shares


def moments(pixels: Sequence[np.ndarray]) -> np.ndarray:
  """Returns mean and standard deviation of the pixels of images, each f[...], f64[2].

  Images with more pixels than others weigh no more.
  """
  # Image by image: all maps of large images are too many to be copied as float64.
  mean = np.mean([each.mean(dtype=np.float64) for each in pixels])
  variance = np.mean([np.square(each - mean).mean() for each in pixels])
  return np.array([mean, np.sqrt(variance)])


def rate_warning(threshold: Threshold, rate: float, images: int, what: str) -> str | None:
  """Returns a warning where a threshold does not ensure the rate that was asked for.

  Args:
    threshold: for it.
    rate: that was asked for.
    images: n.
    what: is called anomalous, as 'images'.
  """
  if threshold.ensured:
    return None
  needed = int(np.ceil(1 / rate)) - 1
  return (
    f'{images} normal images cannot ensure a false-alarm rate of {rate:g} for {what}: that takes '
    f'{needed:,}; the threshold is for {threshold.rate:.2g}'
    + (', which is not ensured either' if threshold.rate <= rate else '')
  )
