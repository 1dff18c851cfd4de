"""How good a detector is on labelled test images, and how fast."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from patch_svdd_jax.data import Split, lighting
from patch_svdd_jax.data.categories import indices
from patch_svdd_jax.detection import region_of_interest
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.threshold_transfer import ThresholdTransfer
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system import process_memory
from patch_svdd_jax.system.batching import Progress


class Scorer(Protocol):
  """What can be measured: a detector, or a baseline."""

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3] by their regions bool[N, H, W], or all of them."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The metrics of one scorer.

  Attributes:
    maps: metrics by map and name, as `maps['k64']['image_auroc']`.
    per_defect: the same for each defect type against all normal test images, where they are of
      several categories those of its own, by map and type.
    per_category: the same for each category by itself, by map and category, where the images are of
      several.
    per_lighting: the same for the images of each light by themselves, normal ones too, by map and
      light, where their names say it.
    timing: seconds and speeds of the stages.
    scores: what they were computed from.
    aupimo: f64[N] by map, AUPIMO of each image; NaN where it has none, see `metrics.Measured`.
    stages: seconds an image, by stage; of a run from its files to its verdicts, where known.
    thresholds: what thresholds from normal images give by the main map; None where the scorer is
      not calibrated.
  """

  maps: dict[str, dict[str, float]]
  per_defect: dict[str, dict[str, dict[str, float]]]
  timing: dict[str, float]
  scores: Scores
  aupimo: dict[str, np.ndarray]
  per_category: dict[str, dict[str, dict[str, float]]] = dataclasses.field(default_factory=dict)
  stages: dict[str, float] = dataclasses.field(default_factory=dict)
  per_lighting: dict[str, dict[str, dict[str, float]]] = dataclasses.field(default_factory=dict)
  thresholds: ThresholdTransfer | None = None

  @property
  def main_map(self) -> str:
    """The name of the map that verdicts are made by."""
    return self.scores.main_map


def evaluate(
  scorer: Scorer,
  split: Split,
  progress: Progress = iter,
  categories: Sequence[str] = (),
  lights: Sequence[str] = (),
) -> Evaluation:
  """Scores the images of a split and compares with its labels and masks, on raw scores.

  Where images have regions, pixels outside count nowhere. The label of an image is its own, even if
  its defect lies outside, see `defects_outside`.

  Args:
    scorer: to be measured.
    split: the images.
    progress: wraps the iterable of batches.
    categories: of the images, see `data.categories.combine`; none where there is one.
    lights: of each image, see `Dataset.lights`; none where they are not known.
  """
  if isinstance(scorer, Detector):
    split = dataclasses.replace(split, regions=scorer.regions_of(split.images, split.regions))
  scores = scorer.score(split.images, progress, split.regions)
  start = time.perf_counter()
  overall, per_defect, per_category, per_lighting, aupimo = {}, {}, {}, {}, {}
  for name in scores.maps:
    measured = map_metrics(scores, split, name, slice(None))
    overall[name], per_defect[name], aupimo[name] = measured
    if categories:
      found = {
        category: map_metrics(scores, split, name, indices(split.names, category))
        for category in categories
      }
      per_category[name] = {category: each.overall for category, each in found.items()}
      per_defect[name] = {k: v for each in found.values() for k, v in each.per_type.items()}
    if lights:
      found = {
        light: map_metrics(scores, split, name, np.flatnonzero(np.array(lights) == light))
        for light in lighting.ordered(lights)
      }
      per_lighting[name] = {light: each.overall for light, each in found.items()}
  seconds = time.perf_counter() - start
  timing = speeds(scores) | {'metrics_seconds': seconds}
  if isinstance(scorer, Detector):
    timing |= search_speeds(scorer, scores, split)
  return Evaluation(
    overall,
    per_defect,
    timing,
    scores,
    aupimo,
    per_category,
    dict(scores.seconds),
    per_lighting,
  )


def map_metrics(
  scores: Scores, split: Split, name: str, chosen: np.ndarray | slice
) -> metrics.Measured:
  """Measures some images by one map, see `metrics.evaluate`.

  Args:
    scores: of all images.
    split: all images.
    name: of the map.
    chosen: i[M], numbers of images, or a slice.
  """
  return metrics.evaluate(
    split.labels[chosen],
    np.array(split.defects)[chosen].tolist(),
    split.masks[chosen],
    split.has_mask[chosen],
    scores.images[name][chosen],
    scores.maps[name][chosen],
    None if split.regions is None else split.regions[chosen],
  )


def defects_outside(split: Split) -> list[str]:
  """Returns the names of images whose defects, as far as masks say, all lie outside their region.

  They are still called anomalous, and count as missed where their region looks normal.
  """
  if split.regions is None:
    return []
  reached = (split.masks & split.regions).any(axis=(1, 2))
  outside = split.labels & split.has_mask & split.masks.any(axis=(1, 2)) & ~reached
  return [split.names[index] for index in np.flatnonzero(outside)]


def warn_of_defects_outside(names: Sequence[str]) -> str:
  """Returns one line about images, at least one, of `defects_outside`."""
  return (
    f'the whole defect lies outside of the region of interest in {len(names)} of the defective '
    f'test images ({names[0]}{", ..." if len(names) > 1 else ""}), which stay defective: one whose '
    'region looks normal is missed'
  )


def search_flop(
  detector: Detector, image_size: ImageSize, regions: np.ndarray | None = None
) -> float:
  """Counts floating-point operations of one image's distances: 2 Q N D, over the scales.

  Of images with regions bool[N, H, W] it is the mean.
  """
  counted = region_of_interest.counted_patches(detector.config, regions)
  return float(
    sum(
      2.0
      * (
        region_of_interest.rows_of_images(counted[k]).mean()
        if counted
        else geometry.patch_count(image_size, k, stride)
      )
      * detector.banks[k].size
      * detector.banks[k].dim
      for k, stride in strides_of(detector.config).items()
    )
  )


def speeds(scores: Scores) -> dict[str, float]:
  """Returns images a second of each stage and of all, and peak memory."""
  rates = {f'{stage}_images_per_s': 1 / s for stage, s in scores.seconds.items()}
  return rates | {
    'images_per_s': 1 / sum(scores.seconds.values()),
    'peak_memory_mib': peak_memory() / 2**20,
  }


def search_speeds(detector: Detector, scores: Scores, split: Split) -> dict[str, float]:
  """Returns the speed of distances in GFLOP/s, the fraction that fell back, and the rows."""
  return {
    'search_gflop_per_s': search_flop(detector, split.images.shape[1:3], split.regions)
    / scores.seconds['search']
    / 1e9,
    'search_fallback_fraction': fallback_fraction(scores),
    'bank_rows': float(sum(bank.size for bank in detector.banks.values())),
  }


def fallback_fraction(scores: Scores) -> float:
  """Returns the fraction of patches of all scales whose nearest rows took more than k passes."""
  patches = {
    name: np.count_nonzero(~np.isnan(distances)) for name, distances in scores.distances.items()
  }
  fell_back = sum(patches[name] * scores.fallback_fraction[name] for name in patches)
  return fell_back / sum(patches.values())


def peak_memory() -> int:
  """Returns the most bytes used so far, of the fullest device or else of this process."""
  statistics: list[Any] = [device.memory_stats() for device in jax.local_devices()]
  if all(statistics):
    return int(max(each['peak_bytes_in_use'] for each in statistics))
  return process_memory.peak()
