"""From images to verdicts: scores, p-values, alarms at a false-alarm rate, and where to look."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from patch_svdd_jax.data import Split, appearance, image_size
from patch_svdd_jax.detection import (
  calibration,
  distribution_shift,
  region_of_interest,
  regions,
)
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.detection.scores import Scores, timed
from patch_svdd_jax.errors import UserError

UNCALIBRATED = (
  'the detector is not calibrated, so no score means an alarm: run `patch-svdd build-bank` on '
  'its workdir, with at least two normal images and config.calibration.images above 0'
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """Above what an image, and a pixel, is called anomalous.

  Attributes:
    image: for image scores.
    pixel: for the values of maps.
    warnings: what to say of them, as that too few normal images are known for the rates.
  """

  image: Threshold
  pixel: Threshold
  warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Inspection:
  """What is found of N images.

  Attributes:
    scores: f32[N], anomaly scores; higher is more anomalous.
    maps: f32[N, H, W], anomaly maps of the size of `config.data.image_size`.
    p_values: f64[N], the share of normal images that score as high, see `calibration`.
    alarms: bool[N], whether the score is above the limit.
    regions: of each image with an alarm, where; none of the others.
    warnings: of each image, what shows that it looks otherwise than normal images.
    statistics: f[N] each, for `distribution_shift.of_batch`.
    seconds: of each stage ('embed', 'search', 'map', 'verdict'), an image.
  """

  scores: np.ndarray
  maps: np.ndarray
  p_values: np.ndarray
  alarms: np.ndarray
  regions: tuple[tuple[Region, ...], ...]
  warnings: tuple[tuple[str, ...], ...]
  statistics: Mapping[str, np.ndarray]
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def of_each(self, split: Split) -> list[Prediction]:
    """Returns what is found of each image of the split that was inspected."""
    return [
      Prediction(
        name=split.names[i],
        score=float(self.scores[i]),
        p_value=float(self.p_values[i]),
        alarm=bool(self.alarms[i]),
        size=(int(split.sizes[i, 0]), int(split.sizes[i, 1])),
        regions=self.regions[i],
        warnings=self.warnings[i],
      )
      for i in range(len(split))
    ]

  def first(self, count: int) -> 'Inspection':
    """Returns what is found of the first images; the seconds of the others count as theirs."""
    share = len(self.scores) / count
    return Inspection(
      self.scores[:count],
      self.maps[:count],
      self.p_values[:count],
      self.alarms[:count],
      self.regions[:count],
      self.warnings[:count],
      {name: values[:count] for name, values in self.statistics.items()},
      {stage: share * seconds for stage, seconds in self.seconds.items()},
    )


def limits(detector: Detector, rate: float, pixel_rate: float) -> Limits:
  """Returns the limits for false-alarm rates.

  Args:
    detector: calibrated.
    rate: share of normal images that may be called anomalous, in (0, 1).
    pixel_rate: share of a normal image's pixels that may be.

  Raises:
    UserError: a rate is none, or the detector is not calibrated.
  """
  _check_rate('false-alarm rate', rate)
  pixel, pixel_warnings = pixel_limit(detector, pixel_rate)
  found = calibrated(detector)
  image = found.threshold(rate)
  warning = calibration.rate_warning(image, rate, found.images, 'images')
  return Limits(image, pixel, (*([warning] if warning else []), *pixel_warnings))


def pixel_limit(detector: Detector, rate: float) -> tuple[Threshold, tuple[str, ...]]:
  """Returns the limit for the pixels of maps and what to say of it; as of `limits`."""
  _check_rate('pixel false-alarm rate', rate)
  found = calibrated(detector)
  pixel = found.pixel_threshold(rate)
  warning = calibration.rate_warning(pixel, rate, found.images, 'pixels')
  return pixel, (warning,) if warning else ()


def _check_rate(name: str, rate: float) -> None:
  if not 0 < rate < 1:
    raise UserError(f'{name} {rate:g}: give one above 0 and below 1, as 0.01')


def calibrated(detector: Detector) -> calibration.Calibration:
  """Returns the detector's calibration.

  Raises:
    UserError: it has none.
  """
  if detector.calibration is None:
    raise UserError(UNCALIBRATED)
  return detector.calibration


def inspect(detector: Detector, split: Split, limit: Limits) -> Inspection:
  """Scores images and judges them.

  Args:
    detector: calibrated.
    split: of images in the light of `data.light`.
    limit: of `limits`.
  """
  return judge(detector, detector.score(split.images, regions=split.regions), split, limit)


def judge(detector: Detector, scores: Scores, split: Split, limit: Limits) -> Inspection:
  """Judges images by what the detector has scored them."""
  found = calibrated(detector)
  image_scores, maps = scores.images[scores.main_map], scores.maps[scores.main_map]
  seconds = dict(scores.seconds)
  with timed(seconds, 'verdict', len(split)):
    alarms = image_scores > limit.image.value
    looks = dict(zip(appearance.NAMES, split.appearance.T, strict=True))
    statistics = looks | scores.norms
    warnings = distribution_shift.outside(found.statistics, statistics)
    if image_size.ASPECT in found.statistics:
      aspect = float(np.median(found.statistics[image_size.ASPECT]))
      stretched = image_size.stretch_warnings(aspect, split.sizes)
      warnings = [texts + other for texts, other in zip(warnings, stretched, strict=True)]
    if blind := unjudged(detector, split.regions):
      warnings = [texts + other for texts, other in zip(warnings, blind, strict=True)]
    p_values = found.p_values(image_scores)
    found_regions = find_regions(maps, alarms, limit.pixel.value, split.sizes)
  return Inspection(
    scores=image_scores,
    maps=maps,
    p_values=p_values,
    alarms=alarms,
    regions=found_regions,
    warnings=tuple(warnings),
    statistics=statistics,
    seconds=seconds,
  )


def unjudged(detector: Detector, regions: np.ndarray | None) -> list[tuple[str, ...]]:
  """Returns what to say of each image whose region is too small to be judged; [] without regions.

  Its map is 0 as there is no patch to look at, and it would pass silently. The scales of a product
  need a patch each.
  """
  if regions is None:
    return []
  counted = region_of_interest.counted_patches(detector.config, regions) or {}
  rows = {k: region_of_interest.rows_of_images(each) for k, each in counted.items()}
  return [
    tuple(
      f'no patch of {k} pixels counts in its region: it was not judged'
      for k, counts in rows.items()
      if not counts[index]
    )
    for index in range(len(regions))
  ]


def batch_size(detector: Detector) -> int:
  """Returns how many images are scored at a time, on all local devices."""
  return int(detector.config.score.batch_size * jax.local_device_count())


def inspect_padded(detector: Detector, split: Split, limit: Limits, size: int) -> Inspection:
  """Inspects at most `size` images, padded to that many with copies.

  Another number of images would be another program to compile.
  """
  count = len(split)
  return inspect(detector, split.take(np.resize(np.arange(count), size)), limit).first(count)


def find_regions(
  maps: np.ndarray, alarms: Sequence[bool] | np.ndarray, threshold: float, sizes: np.ndarray
) -> tuple[tuple[Region, ...], ...]:
  """Finds the regions of images with an alarm, whose sizes are i64[N, 2]."""
  return tuple(
    regions.find(each, threshold, (int(height), int(width))) if alarm else ()
    for each, alarm, (height, width) in zip(maps, alarms, sizes, strict=True)
  )
