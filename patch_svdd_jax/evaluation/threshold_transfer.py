"""Measures thresholds that normal images alone have set on labelled test images.

A best F1 is that of a threshold which the test labels chose; nobody who inspects parts has one.
Two thresholds need no label, see THRESHOLDS: that of a false-alarm rate, which calibration
promises, and the mean + 3 standard deviations of normal images' scores, by which MVTec AD 2
binarises maps (Heckler-Kram et al. 2025, "The MVTec AD 2 Dataset"). Both come from the normal
images of `detection.calibration`, that the memory bank does not know: image thresholds from image
scores, pixel thresholds from the pixels of their maps.

An element is called anomalous where its score is above the threshold, as `detection.inspection`
has it; one that is equal is not. (`metrics` counts it at its threshold of the best F1. Which sets
of elements can be called is the same by either rule, so no F1 here exceeds the best.) ClassF1 is
the F1 of all test images; SegF1 that of all pixels of all test images whose mask is known, normal
ones too, counted together and divided once. Of images with regions of interest only pixels in
these count.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.calibration import Calibration, Threshold
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.detection.scores import Scores

# What sets a threshold, in the order and the words of tables.
THRESHOLDS = {
  'false_alarm_rate': 'false-alarm rate',
  'mean_plus_3_std': 'mean + 3 std',
}
CONFIDENCE = 0.95
UNKNOWN = float('nan')


class Transferred(NamedTuple):
  """One threshold on the test images, or on their pixels.

  Attributes:
    value: what scores above it is called anomalous; NaN where it is not known, as all else then.
    f1: 2 TP / (2 TP + FP + FN); NaN where one of the two classes is absent.
    precision: TP / (TP + FP); NaN, too, where nothing is called anomalous.
    recall: TP / (TP + FN).
    best_f1: of the threshold that is best for these test labels.
    promised: the share of false alarms that calibration gives; NaN where nothing is promised.
    ensured: whether it is proven, see `calibration.Threshold`.
    realised: the share of normal test images that are above; of pixels the mean share of a normal
      test image's pixels. NaN where no test image is normal.
    false_alarms: how many normal test images are above; None for pixels.
    interval: of the share of images, Clopper and Pearson's at CONFIDENCE; NaN for pixels, which are
      not independent of each other.
  """

  value: float
  f1: float
  precision: float
  recall: float
  best_f1: float
  promised: float
  ensured: bool
  realised: float
  false_alarms: int | None = None
  interval: tuple[float, float] = (UNKNOWN, UNKNOWN)

  @property
  def gap(self) -> float:
    """Returns what the threshold loses against the best for these test labels."""
    return self.best_f1 - self.f1


@dataclasses.dataclass(frozen=True)
class ThresholdTransfer:
  """Results of thresholds from normal images.

  Attributes:
    image: of image scores, by the keys of THRESHOLDS.
    pixel: of pixels.
    normal_images: how many test images are normal.
    calibration_error: of their p-values, see `calibration_error`.
    error_by_chance: what that would be on average if the p-values were those of exchangeable
      images, see `error_by_chance`.
  """

  image: Mapping[str, Transferred]
  pixel: Mapping[str, Transferred]
  normal_images: int
  calibration_error: float
  error_by_chance: float

  def to_json(self) -> dict[str, Any]:
    """Returns what metrics.json has of it."""

    def plain(found: Mapping[str, Transferred]) -> dict[str, Any]:
      return {name: each._asdict() | {'gap': each.gap} for name, each in found.items()}

    return {
      'image': plain(self.image),
      'pixel': plain(self.pixel),
      'p_values': {
        'normal_images': self.normal_images,
        'calibration_error': self.calibration_error,
        'error_by_chance': self.error_by_chance,
      },
    }


def measure(
  calibration: Calibration,
  limits: Limits,
  split: Split,
  scores: Scores,
  figures: Mapping[str, float],
) -> ThresholdTransfer:
  """Tries the thresholds on labelled test images.

  Args:
    calibration: of the detector.
    limits: at the false-alarm rates that are asked for.
    split: the test images.
    scores: of the detector for them.
    figures: the main map's metrics, as `metrics.evaluate` returns them.
  """
  image_scores, maps = scores.images[scores.main_map], scores.maps[scores.main_map]

  def of_images(threshold: Threshold) -> Transferred:
    called = image_scores > threshold.value
    quality = classify(split.labels, called)
    return _transferred(threshold, quality, figures['image_f1_max'], called[~split.labels])

  def of_pixels(threshold: Threshold) -> Transferred:
    called = maps > threshold.value
    known = split.has_mask
    if split.regions is None:
      truth, of_known, of_normal = split.masks[known], called[known], called[~split.labels]
    else:
      truth, of_known = (each[known][split.regions[known]] for each in (split.masks, called))
      normal_ones = zip(called[~split.labels], split.regions[~split.labels], strict=True)
      # Each image weighs the same, however large its region is.
      of_normal = np.array([[each[region].mean()] for each, region in normal_ones if region.any()])
    quality = classify(truth, of_known)
    return _transferred(threshold, quality, figures['pixel_f1_max'], of_normal)

  image_moments = calibration.scores.mean(), calibration.scores.std()
  normal = image_scores[~split.labels]
  return ThresholdTransfer(
    image={
      'false_alarm_rate': of_images(limits.image),
      'mean_plus_3_std': of_images(three_sigma(*image_moments)),
    },
    pixel={
      'false_alarm_rate': of_pixels(limits.pixel),
      'mean_plus_3_std': of_pixels(three_sigma(*calibration.pixel_moments)),
    },
    normal_images=len(normal),
    calibration_error=calibration_error(calibration, normal),
    error_by_chance=error_by_chance(calibration.images, len(normal)),
  )


def three_sigma(mean: float, deviation: float) -> Threshold:
  """Returns the mean + 3 standard deviations, which promises no rate."""
  return Threshold(float(mean + 3 * deviation), UNKNOWN, ensured=False)


class Quality(NamedTuple):
  """F1, precision and recall of calls."""

  f1: float
  precision: float
  recall: float


def classify(truth: np.ndarray, called: np.ndarray) -> Quality:
  """Returns F1, precision and recall of bool arrays of one shape; see `Transferred`."""
  anomalous, alarms = np.count_nonzero(truth), np.count_nonzero(called)
  if anomalous in (0, truth.size):
    return Quality(UNKNOWN, UNKNOWN, UNKNOWN)
  found = np.count_nonzero(truth & called)
  precision = found / alarms if alarms else UNKNOWN
  return Quality(2 * found / (alarms + anomalous), precision, found / anomalous)


def _transferred(
  threshold: Threshold, quality: Quality, best: float, false_alarms: np.ndarray
) -> Transferred:
  """Puts together what is known of a threshold.

  Args:
    threshold: from normal images.
    quality: of what is above it.
    best: F1 for the test labels.
    false_alarms: bool[N] of the normal test images, or bool[N, H, W] of their pixels, or f64[N, 1],
      the share of each one's pixels that count.
  """
  if np.isnan(threshold.value):
    unknown = Quality(UNKNOWN, UNKNOWN, UNKNOWN)
    return Transferred(UNKNOWN, *unknown, best, UNKNOWN, ensured=False, realised=UNKNOWN)
  found = Transferred(
    threshold.value,
    *quality,
    best,
    threshold.rate,
    threshold.ensured,
    float(false_alarms.mean()) if false_alarms.size else UNKNOWN,
  )
  if false_alarms.ndim > 1:
    return found
  count = int(false_alarms.sum())
  return found._replace(false_alarms=count, interval=binomial_interval(count, false_alarms.size))


def binomial_interval(count: int, trials: int) -> tuple[float, float]:
  """Returns the exact interval of a share at CONFIDENCE; NaN without trials.

  Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the
  binomial": the probabilities by which as many or more, and as many or fewer, are counted in no
  more than (1 - CONFIDENCE) / 2 of all cases.
  """
  if not trials:
    return UNKNOWN, UNKNOWN
  from scipy import stats  # a third of a second, which not every process needs

  low, high = stats.binomtest(count, trials).proportion_ci(CONFIDENCE, method='exact')
  return float(low), float(high)


def calibration_error(calibration: Calibration, normal: np.ndarray) -> float:
  """Returns the expected calibration error of the p-values of normal images f[m], in [0, 1].

  Of n calibration images the rates that can be promised are a_k = k / (n + 1), k = 1 ... n + 1, and
  p <= a_k should be true of that share of normal images. The error is the mean over all of them of

    | share of the m images with p <= a_k  -  a_k |,

  the absolute difference of what is promised and what occurs, without bins: there is one for each
  p-value that can occur (expected calibration error: Naeini, Cooper & Hauskrecht 2015, "Obtaining
  Well Calibrated Probabilities Using Bayesian Binning"; of shares below quantiles: Kuleshov, Fenner
  & Ermon 2018, "Accurate Uncertainties for Deep Learning Using Calibrated Regression"). It is also
  the Wasserstein-1 distance of the p-values from the law that they should have. NaN if m is 0.
  """
  if not len(normal):
    return UNKNOWN
  places = calibration.images + 1
  ranks = np.rint(calibration.p_values(normal) * places).astype(int)
  shares = np.cumsum(np.bincount(ranks, minlength=places + 1)[1:]) / len(normal)
  return float(np.abs(shares - np.arange(1, places + 1) / places).mean())


def error_by_chance(images: int, normal_images: int) -> float:
  """Returns the mean `calibration_error` of m normal images that are exchangeable with n others.

  The number of the m whose p is at most k / (n + 1) then follows the beta-binomial law of m trials
  with k and n + 1 - k, where no two scores are equal (Vovk 2012, "Conditional Validity of Inductive
  Conformal Predictors"). NaN if m is 0.
  """
  if not normal_images:
    return UNKNOWN
  from scipy import stats  # as above

  places, counts = images + 1, np.arange(normal_images + 1)
  ranks = np.arange(1, places)[:, None]
  law = stats.betabinom(normal_images, ranks, places - ranks)
  distances = np.abs(counts / normal_images - ranks / places)
  return float(np.sum(law.pmf(counts) * distances) / places)
