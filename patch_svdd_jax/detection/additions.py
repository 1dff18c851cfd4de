"""Adds normal images to a detector without training: to its memory banks and its calibration.

The encoder, its mean image and the projection of its features stay. The banks become those of all
images, in their order. Each added image calibrates, too, by its score before it was added: that is
cross-fitting in which it is a fold of its own. The other images' scores are those by their folds'
banks and the added images.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data import Split, appearance, image_size
from patch_svdd_jax.detection import (
  anomaly_map,
  bank_building,
  calibration,
  calibration_scores,
  inspection,
  recalibration,
)
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.detector import Addition, Detector
from patch_svdd_jax.detection.recalibration import Evidence
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.search import memory_bank


class Moved(NamedTuple):
  """What adding images has changed, before and after.

  Attributes:
    images: that calibrate.
    threshold: of image scores at a false-alarm rate.
    median: of the scores of the images that calibrate.
    scores: f64[N], of the added images, each by those before it.
    p_values: f64[N], of these scores, by the calibration before.
  """

  images: tuple[int, int]
  threshold: tuple[Threshold, Threshold]
  median: tuple[float, float]
  scores: np.ndarray
  p_values: np.ndarray

  @property
  def alarms(self) -> np.ndarray:
    """Returns which of the added images were anomalous before, bool[N]."""
    return self.scores > self.threshold[0].value


def evidence_of(detector: Detector) -> Evidence:
  """Returns what brings the detector's calibration up to date.

  Raises:
    UserError: no images can be added; says why, and what to do instead.
  """
  found = inspection.calibrated(detector)
  del found
  reason = recalibration.obstacle(detector.config, detector.needs_regions)
  if reason is None and detector.evidence is None:
    reason = 'an earlier version of this package calibrated it, or it was fitted otherwise'
  if reason or detector.evidence is None:
    raise UserError(
      f'no images can be added to this detector, for {reason}: put them among the training images '
      'and run `patch-svdd build-bank`'
    )
  return detector.evidence


def add(
  detector: Detector, split: Split, additions: tuple[Addition, ...], rate: float
) -> tuple[Detector, Moved]:
  """Returns the detector with further normal images, and what they have changed.

  Args:
    detector: calibrated.
    split: the images, in the light of `data.light`.
    additions: what is kept of each in the detector's origin.
    rate: of false alarms, whose threshold is compared.

  Raises:
    UserError: no images can be added to this detector.
  """
  evidence_of(detector)
  before, grown, scores = inspection.calibrated(detector), detector, []
  for index in range(len(split)):
    grown, score = _with_one(grown, split.take(np.array([index])))
    scores.append(score)
  grown = _recalibrated(grown, split.images.shape[1:3])
  origin = detector.origin._replace(additions=(*detector.origin.additions, *additions))
  after = inspection.calibrated(grown)
  found = np.array(scores, np.float64)
  return dataclasses.replace(grown, origin=origin), Moved(
    (before.images, after.images),
    (before.threshold(rate), after.threshold(rate)),
    (float(np.median(before.scores)), float(np.median(after.scores))),
    found,
    before.p_values(found),
  )


def with_room(detector: Detector) -> Detector:
  """Returns the detector with room for more images in its banks: adding them compiles nothing."""
  evidence, banks = evidence_of(detector), {}
  for k, bank in detector.banks.items():
    patches = int(np.count_nonzero(~np.isnan(evidence.distances[scale_name(k)][0])))
    if isinstance(bank, memory_bank.MemoryBank) and not bank.layout.sharded:
      bank = memory_bank.with_room(bank, bank.size + memory_bank.AHEAD * patches)
    banks[k] = bank
  return dataclasses.replace(detector, banks=banks)


def _with_one(detector: Detector, split: Split) -> tuple[Detector, float]:
  """Returns the detector with an image, its calibration not up to date, and the image's score."""
  evidence, found = evidence_of(detector), inspection.calibrated(detector)
  regions = detector.regions_of(split.images, split.regions)
  scores = detector.score(split.images, regions=regions)
  rows = _embeddings(detector, split.images[0])
  nearer = recalibration.nearer_distances(
    evidence, detector.config, detector.region, detector.banks, rows
  )
  distances = {
    name: np.concatenate([each, np.asarray(scores.distances[name])])
    for name, each in nearer.items()
  }
  k = next(iter(rows))
  place = detector.banks[k].size // len(rows[k])
  looks = dict(zip(appearance.NAMES, split.appearance.T, strict=True)) | scores.norms
  looks |= {image_size.ASPECT: image_size.aspects(split.sizes)}
  statistics = {
    name: np.concatenate([each, np.asarray(looks[name], np.float64)])
    for name, each in found.statistics.items()
  }
  return dataclasses.replace(
    detector,
    banks={k: bank_building.append(bank, rows[k]) for k, bank in detector.banks.items()},
    evidence=recalibration.extended(evidence, distances, [place]),
    calibration=dataclasses.replace(found, statistics=statistics),
  ), float(scores.images[scores.main_map][0])


def _embeddings(detector: Detector, image: np.ndarray) -> dict[int, np.ndarray]:
  """Returns the rows f32[P, D] of an image at each scale, to the bit as in a bank of many images.

  Those are embedded in whole batches, and a batch of another size may sum up otherwise.
  """
  batch = np.broadcast_to(image, (inspection.batch_size(detector), *image.shape))
  found = calibration_scores.embeddings(detector, batch, None)
  return {k: rows[: len(rows) // len(batch)] for k, rows in found.items()}


def _recalibrated(detector: Detector, size: tuple[int, ...]) -> Detector:
  """Returns the detector with the calibration that its evidence tells."""
  evidence = evidence_of(detector)
  maps = detector.main_maps(evidence.distances, (size[0], size[1]))
  regions = None
  if detector.region is not None:
    regions = np.broadcast_to(detector.region, maps.shape)
  found = calibration.calibrate(
    anomaly_map.image_score(maps), maps, inspection.calibrated(detector).statistics, regions
  )
  return dataclasses.replace(detector, calibration=found)
