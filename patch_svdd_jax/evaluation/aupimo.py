"""AUPIMO: the share of a defect that is found where normal images have next to no false positive.

The curve of an image with a known defect (per-image overlap, PIMO) is the recall of a threshold,
the share of the image's anomalous pixels that score at least so high, over its shared false
positive rate (FPR), the mean over *normal images* of the share of their pixels that score at least
so high; where images have as many pixels, the share of all their pixels. AUPIMO is the mean recall
over log FPR:

  1 / log(U / L) * integral from log L to log U of recall d(log FPR), L = 1e-5, U = 1e-4

(Bertoldo, Ameln, Vaidya, Akcay 2024, AUPIMO: Redefining anomaly localization benchmarks with high
speed and low tolerance, BMVC). Defective images add nothing to the FPR: the threshold is one that
can be set without any defect.

It is exact: the curve passes through every distinct score. While the threshold passes a normal
score the FPR rises and the recall stays: a level line; while it passes an anomalous one the recall
steps up. Only where both are equal is there anything to choose: a straight line over log FPR, which
is the trapezoid rule of the authors' package (aupimo, and anomalib.metrics.pimo), and its value in
the limit of many thresholds. The package samples thresholds evenly between the lowest and the
highest normal score, and integrates from the sampled FPR next to L to that next to U; here the line
is cut at L and U themselves.

Below the FPR of the highest normal score there are only thresholds above all normal pixels: the
recall there is theirs, at an FPR of 0, as a line over log FPR cannot begin at 0. With fewer than
1 / L = 100,000 normal pixels that is where the integral begins, with fewer than 10,000 it is all of
it: the share of the defect that scores above every normal pixel. The package raises an error where
the highest normal scores alone have an FPR above L.
"""

from typing import Any

import numpy as np

from patch_svdd_jax.evaluation.ranking import Pixels

FPR_LIMITS = (1e-5, 1e-4)


def distribution(values: np.ndarray) -> dict[str, Any]:
  """Returns mean, std, the three quartiles and the number of those that are not NaN.

  All but the number are NaN where there is none. The standard deviation is that of these images,
  divided by their number, not one less.
  """
  known = values[~np.isnan(values)]
  if not known.size:
    return {'mean': np.nan, 'std': np.nan, 'quartiles': [np.nan] * 3, 'images': 0}
  return {
    'mean': float(np.mean(known)),
    'std': float(np.std(known)),
    'quartiles': np.quantile(known, [0.25, 0.5, 0.75]).tolist(),
    'images': int(known.size),
  }


def false_positive_rates(good: Pixels) -> np.ndarray | None:
  """Returns the FPR of a threshold below which n of the normal pixels lie, f64[Q + 1] by n.

  Args:
    good: pixels of the normal images.

  Returns:
    None where these have as many pixels each: the FPR then is 1 - n / Q.
  """
  if good.normal_images is None:
    return None
  pixels = np.bincount(good.normal_images)
  # Summed from the highest score down: the lowest rates are those that matter.
  weights = 1 / pixels[good.normal_images[::-1]] / np.count_nonzero(pixels)
  rates: np.ndarray = np.concatenate([[0.0], np.cumsum(weights)])[::-1]
  return rates


def aupimo_of_images(
  normal: np.ndarray,
  anomalous: np.ndarray,
  images: np.ndarray,
  count: int,
  rates: np.ndarray | None = None,
) -> np.ndarray:
  """Returns AUPIMO of each image, f64[count] in [0, 1], NaN of one without an anomalous pixel.

  The areas that each anomalous pixel adds are averaged, as in `metrics.aupro`: none up to the FPR
  at which its score is reached, a ramp while that of equal normal ones is passed, then its weight.

  Args:
    normal: f[Q], scores of all pixels of the normal images, rising; all is NaN where there is none.
    anomalous: f[P], scores of the anomalous pixels.
    images: i[P] in 0..count-1, the image of each of them.
    count: number of images.
    rates: of `false_positive_rates`.
  """
  if not normal.size:
    return np.full(count, np.nan)
  pixels = np.bincount(images, minlength=count)
  # An image's pixels mostly score below the normal ones within the limit, and add nothing.
  within = int(FPR_LIMITS[1] * normal.size)
  if rates is not None:
    within = int(np.count_nonzero(rates <= FPR_LIMITS[1])) - 1
  high = anomalous >= normal[max(-1 - within, -normal.size)]
  areas = np.bincount(images[high], _areas(normal, anomalous[high], rates), minlength=count)
  found: np.ndarray = np.divide(areas, pixels, out=np.full(count, np.nan), where=pixels > 0)
  return found


def _areas(normal: np.ndarray, scores: np.ndarray, rates: np.ndarray | None) -> np.ndarray:
  """Returns the area below the recall of each pixel alone over log FPR, as a share of all of it."""
  low, high = np.log(FPR_LIMITS)
  below = np.stack([np.searchsorted(normal, scores, side) for side in ('right', 'left')])
  above, at_least = (normal.size - below) / normal.size if rates is None else rates[below]
  with np.errstate(divide='ignore'):  # an FPR of 0
    start, end = np.log(np.stack([above, at_least]))
  first, last = np.clip([start, end], low, high)
  areas = high - last
  ramp = (above > 0) & (above < at_least)
  first, last, start, end = (each[ramp] for each in (first, last, start, end))
  areas[ramp] += (last - first) * ((first + last) / 2 - start) / (end - start)
  shares: np.ndarray = np.minimum(areas / (high - low), 1)
  return shares
