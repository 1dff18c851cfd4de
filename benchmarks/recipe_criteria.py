"""Criteria that rank detectors without a label; a higher value promises to find more anomalies."""

import math
from collections.abc import Mapping

import numpy as np

from patch_svdd_jax.data import Split
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation import separation
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.separation import Examples
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.training import checkpoint_selection

# The quantile of held-out distances: an image's score is that of its farthest patch.
QUANTILE = 0.99
# Metrics on synthetic anomalies.
SEPARATION = ('image_auroc', 'pixel_auroc', 'aupro_5')


def measure(
  scorer: Scorer,
  statistics: Mapping[str, float] | None,
  held_out: Split,
  examples: Examples | None,
) -> dict[str, float]:
  """Returns the criteria of a scorer by name, those that it has.

  - 'checkpoint rule': `checkpoint_selection.score`, which does not see how patches are scored.
  - 'held-out distance': minus the logarithm of the 99 % quantile of the distances of held-out
    patches, by which the scorer scores, in units of the root mean square distance of the memory
    bank's rows from their mean; summed over scales.
  - 'held-out tail': minus the logarithm of the same quantile over the median; summed over scales.
  - 'separation, image AUROC' and others: how well synthetic anomalies on held-out images are found;
    'separation': the mean of image AUROC and AU-PRO .05.

  Args:
    scorer: a detector or a baseline.
    statistics: of `training.validation`; none of what has no encoder.
    held_out: normal images that are not in the banks; without any there are no criteria.
    examples: of the held-out images, of `separation.make_examples`; None without any.
  """
  found = {}
  if statistics:
    found['checkpoint rule'] = checkpoint_selection.score(statistics)
  distances = scorer.score(held_out.images).distances if len(held_out) else {}
  if distances:
    high = {name: float(np.quantile(each, QUANTILE)) for name, each in distances.items()}
    medians = {name: float(np.median(each)) for name, each in distances.items()}
    found['held-out tail'] = nearness(high, medians)
    if isinstance(scorer, Detector):
      found['held-out distance'] = nearness(high, radii(scorer))
  if examples is not None:
    figures = separation.separate(scorer, examples).figures
    found |= {f'separation, {TITLES[name]}': figures[name] for name in SEPARATION}
    found['separation'] = (figures['image_auroc'] + figures['aupro_5']) / 2
  return found


def radii(detector: Detector) -> dict[str, float]:
  """Returns the root mean square distance of each bank's rows from their mean, by scale."""
  rows = {scale_name(k): memory_bank.to_rows(bank) for k, bank in detector.banks.items()}
  return {name: math.sqrt(each.var(axis=0, dtype=np.float64).sum()) for name, each in rows.items()}


def nearness(distances: Mapping[str, float], units: Mapping[str, float]) -> float:
  """Returns minus the logarithms of distances in units, summed over scales; -inf without a unit."""
  if not all(units[name] for name in distances):
    return -math.inf
  if not all(distances.values()):
    return math.inf
  return -sum(math.log(distance / units[name]) for name, distance in distances.items())
