"""Detection and segmentation metrics: exact, tie-aware, on raw scores.

Every metric here follows from where each anomalous element stands among the normal ones, see
`ranking`: counts are integers until the one division at the end.

A higher score means more anomalous, and an element is called anomalous where score >= threshold.
Elements of equal score cross the threshold together. Infinite scores are scores like any other; a
NaN is none and raises UserError. Where one of the two classes is absent, a metric is NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.evaluation.aupimo import aupimo_of_images, distribution, false_positive_rates
from patch_svdd_jax.evaluation.ranking import (
  Pixels,
  Ranking,
  check_scores,
  rank_elements,
  rank_pixels,
  take_pixels,
)

# What `evaluate` gives, in the order and the words of tables.
TITLES = {
  'image_auroc': 'image AUROC',
  'image_ap': 'image AP',
  'image_f1_max': 'image F1',
  'pixel_auroc': 'pixel AUROC',
  'pixel_ap': 'pixel AP',
  'pixel_f1_max': 'pixel F1',
  'pixel_miou_max': 'pixel mIoU',
  'aupro_30': 'AU-PRO .3',
  'aupro_5': 'AU-PRO .05',
  'aupimo': 'AUPIMO',
}
AUROCS = {name: TITLES[name] for name in ('image_auroc', 'pixel_auroc')}


class Measured(NamedTuple):
  """The metrics of one set of anomaly maps.

  Attributes:
    overall: by name, in the order of `TITLES`, in [0, 1], NaN where a class is absent.
    per_type: such metrics of each type of defect, in alphabetical order.
    aupimo: f64[N], see `aupimo`; NaN of normal images, of those whose mask is unknown or empty, and
      of all where no image is normal.
  """

  overall: dict[str, float]
  per_type: dict[str, dict[str, float]]
  aupimo: np.ndarray


def evaluate(
  labels: np.ndarray,
  defects: Sequence[str],
  masks: np.ndarray,
  has_mask: np.ndarray,
  scores: np.ndarray,
  maps: np.ndarray,
  regions: np.ndarray | None = None,
) -> Measured:
  """Measures one set of anomaly maps, overall and for each type of defect.

  Image metrics use all images, pixel metrics those with a mask; AUPIMO is the mean over images. A
  type of defect is measured on its own images against all normal images. The two f1_max and
  miou_max are test-best figures: their thresholds are chosen on the test labels.

  Args:
    labels: bool[N], True for anomalous images.
    defects: N names, the type of defect of each image; those of normal images are not read.
    masks: bool[N, H, W], True where anomalous.
    has_mask: bool[N], whether the mask is known (that of a normal image is).
    scores: f32 or f64[N], image scores.
    maps: f32 or f64[N, H, W], anomaly maps.
    regions: bool[N, H, W], whose pixels alone count, normal and anomalous; None: all do.

  Raises:
    UserError: a score is NaN.
  """
  labels, scores = check_scores(labels, scores)
  masks, maps = check_scores(masks, maps)
  has_mask, names = np.asarray(has_mask, bool), np.asarray(defects, str)
  if not labels.shape == names.shape == has_mask.shape == masks.shape[:1]:
    raise ValueError(
      f'labels, defects, has_mask and masks are of {labels.shape}, {names.shape}, '
      f'{has_mask.shape} and {masks.shape[:1]} images'
    )
  types = [str(name) for name in np.unique(names[labels])]
  # Pixels are gathered and sorted once for each group; a union of groups only adds up the counts.
  good, *groups = (
    take_pixels(
      masks[use & has_mask],
      maps[use & has_mask],
      None if regions is None else regions[use & has_mask],
    )
    for use in (~labels, *(labels & (names == name) for name in types))
  )
  aupimo = np.full(labels.shape, np.nan)
  rates = false_positive_rates(good)
  per_type = {}
  for name, group in zip(types, groups, strict=True):
    of_type = labels & (names == name)
    measured = np.flatnonzero(of_type & has_mask)
    aupimo[measured] = aupimo_of_images(
      good.normal, group.anomalous, group.images, measured.size, rates
    )
    use = ~labels | of_type
    per_type[name] = _measure(labels[use], scores[use], [good, group], aupimo[measured])
  return Measured(_measure(labels, scores, [good, *groups], aupimo), per_type, aupimo)


def _measure(
  labels: np.ndarray, scores: np.ndarray, pixels: Sequence[Pixels], aupimo: np.ndarray
) -> dict[str, float]:
  """Measures some images, given as labels and scores, some groups of pixels, and AUPIMOs."""
  image = rank_elements(labels, scores)
  pixel = rank_pixels(pixels)
  return {
    'image_auroc': auroc(image),
    'image_ap': average_precision(image),
    'image_f1_max': f1_max(image)[0],
    'pixel_auroc': auroc(pixel),
    'pixel_ap': average_precision(pixel),
    'pixel_f1_max': f1_max(pixel)[0],
    'pixel_miou_max': miou_max(pixel),
    'aupro_30': aupro(pixel, 0.3),
    'aupro_5': aupro(pixel, 0.05),
    'aupimo': distribution(aupimo)['mean'],
  }


def auroc(ranking: Ranking) -> float:
  """Returns the area under the receiver operating characteristic, in [0, 1].

  The probability that an anomalous element scores above a normal one, ties counting one half. The
  value is the true fraction, correctly rounded.
  """
  if ranking.one_class:
    return float('nan')
  pairs = ranking.scores.size * ranking.normals
  lost_halves = int(ranking.above.sum()) + int(ranking.false_positives.sum())
  return (2 * pairs - lost_halves) / (2 * pairs)


def average_precision(ranking: Ranking) -> float:
  """Returns the area under the precision-recall steps, sum_n (R_n - R_{n-1}) P_n, in [0, 1].

  There is no interpolation: it is scikit-learn's average_precision_score. Thresholds are the
  distinct scores.
  """
  if ranking.one_class:
    return float('nan')
  found = ranking.true_positives
  return float(np.mean(found / (found + ranking.false_positives)))


def f1_max(ranking: Ranking) -> tuple[float, float]:
  """Returns the best F1 that any threshold reaches, and the highest threshold that reaches it.

  The threshold is chosen on the very labels it is judged by: a test-best figure, an upper bound for
  comparing with publications, and no threshold to use. Both are NaN where a class is absent.
  """
  # Between two anomalous scores a lower threshold only adds false positives: none is best there.
  if ranking.one_class:
    return float('nan'), float('nan')
  found = ranking.true_positives
  f1 = 2 * found / (found + ranking.false_positives + found.size)
  best = f1.size - 1 - int(np.argmax(f1[::-1]))
  return float(f1[best]), float(ranking.scores[best])


def miou_max(ranking: Ranking) -> float:
  """Returns the best intersection over union that any threshold reaches, in [0, 1].

  The IoU of a threshold is that of the anomalous class alone, true positives / (true positives +
  false positives + false negatives), of the pixels of all images together; the mean that mIoU-max
  is named for is that over categories (Zhang et al. 2024, ADer: A comprehensive benchmark for
  multi-class visual anomaly detection; its code tries 21 thresholds, this is the best of all).
  As IoU = F1 / (2 - F1), the threshold is that of `f1_max`: a test-best figure too.
  """
  if ranking.one_class:
    return float('nan')
  found = ranking.true_positives
  return float(np.max(found / (ranking.false_positives + found.size)))


def aupro(ranking: Ranking, max_fpr: float) -> float:
  """Returns the area under the per-region overlap, up to a false positive rate, in [0, 1].

  The overlap of a threshold is the share of a region's pixels that are called anomalous, averaged
  over all 8-connected regions of all images; the false positive rate is that of all normal pixels
  of all images (Bergmann et al. 2020). The trapezoids pass through every distinct score, start at
  (0, 0), are interpolated at `max_fpr`, and their area is divided by `max_fpr`.

  The areas that each anomalous pixel adds are summed: while the threshold passes its score, the
  false positives rise from `above` to `false_positives` and the overlap by the pixel's weight: a
  ramp, then a step of that height. The weights are normalised by their own sum, which rounds as the
  upper sum does: never above 1.

  Args:
    ranking: of pixels.
    max_fpr: the limit of integration, in (0, 1].
  """
  if not 0 < max_fpr <= 1:
    raise ValueError(f'max_fpr is {max_fpr}: it must lie in (0, 1]')
  if ranking.one_class:
    return float('nan')
  limit = max_fpr * ranking.normals
  above, at_least = ranking.above, ranking.false_positives
  area = np.maximum(limit - (above + at_least) / 2, 0)
  cut = at_least > limit  # the limit falls within the ramp or before it
  ties = (at_least - above)[cut]
  area[cut] = np.maximum(limit - above[cut], 0) ** 2 / (2 * np.maximum(ties, 1))
  covered = ranking.weights * np.minimum(area / limit, 1)
  return float(np.sum(covered) / np.sum(ranking.weights))
