"""What a detector scores normal images that it has not learned, by which it is calibrated.

Held-out images are such; where too few are held out to ensure a false-alarm rate of 1 %, all normal
images are scored instead, each by a memory bank without its fold (cross-fitting). The encoder is
then one that has seen them, so the p-values are no longer proven (docs/calibration.md).
"""

import dataclasses
from collections.abc import Iterator, Mapping

import ml_collections
import numpy as np

from patch_svdd_jax.data import Split, appearance, image_size
from patch_svdd_jax.data.dataset import concatenate
from patch_svdd_jax.data.layout import natural_key
from patch_svdd_jax.detection import bank_building, calibration, recalibration, region_of_interest
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import scale_name, strides_of
from patch_svdd_jax.system.batching import Progress, evenly_spaced

# So many held-out images ensure a false-alarm rate of 1 %.
ENOUGH = 99


def calibrate(
  detector: Detector, train: Split, held_out: Split, progress: Progress = iter
) -> Detector:
  """Returns the detector with a calibration; without one where one image or none is to be scored.

  Args:
    detector: fitted to the images of `train`.
    train: normal images.
    held_out: others; N = 0 if there are none.
    progress: wraps the iterable of batches or folds that are scored.
  """
  settings, bank = detector.config.calibration, train
  train, held_out = (counting(split, detector.config) for split in (train, held_out))
  normal = in_file_order(concatenate([train, held_out]))
  if len(normal) < 2 or not settings.images:
    return detector
  if len(held_out) >= ENOUGH:
    scored = held_out.take(evenly_spaced(len(held_out), settings.images))
    scores = detector.score(scored.images, progress, scored.regions).of_main_map()
  else:
    scored = normal.take(evenly_spaced(len(normal), settings.images))
    scores = Scores.concatenate(list(cross_fit(detector, normal, progress)))
  looks = dict(zip(appearance.NAMES, normal.appearance.T, strict=True)) | scores.norms
  statistics = {name: values.astype(np.float64) for name, values in looks.items()}
  found = calibration.calibrate(
    scores.images[scores.main_map],
    scores.maps[scores.main_map],
    statistics | {image_size.ASPECT: image_size.aspects(normal.sizes)},
    detector.regions_of(scored.images, scored.regions),
  )
  return dataclasses.replace(
    detector, calibration=found, evidence=evidence_of(detector, scored, bank, scores)
  )


def evidence_of(
  detector: Detector, scored: Split, bank: Split, scores: Scores
) -> recalibration.Evidence | None:
  """Returns what more images change of a calibration; None where none can be added.

  Args:
    detector: that is calibrated.
    scored: the images by which.
    bank: those of its memory banks.
    scores: of the former.
  """
  if recalibration.obstacle(detector.config, detector.needs_regions):
    return None
  places = recalibration.places_of(scored, bank)
  others = scored.take(np.flatnonzero(places < 0))
  rows = embeddings(detector, others.images, others.regions) if len(others) else {}
  named = {scale_name(k): each for k, each in rows.items()}
  return recalibration.Evidence(scores.distances, places, named)


def embeddings(
  detector: Detector, images: np.ndarray, regions: np.ndarray | None
) -> dict[int, np.ndarray]:
  """Returns the embeddings f32[N, D] of each scale of the patches that count, image after image.

  Args:
    detector: whose encoder is used.
    images: u8[N, H, W, 3].
    regions: bool[N, H, W], of these; None: the detector's.
  """
  regions = detector.regions_of(images, regions)
  return embedding.embed_to_host(
    architecture.from_config(detector.config.encoder),
    detector.params,
    detector.mean,
    images,
    strides_of(detector.config),
    batch_size=detector.config.score.batch_size,
    tile=detector.config.score.tile,
    features=features.from_config(detector.config.score),
    counted=region_of_interest.counted_patches(detector.config, regions),
  )


def fewest_images(config: ml_collections.ConfigDict, train: int, held_out: int) -> int:
  """Returns how many images the smallest memory bank is fitted to, of a detector and `calibrate`.

  Args:
    config: the whole config.
    train: how many images the detector is fitted to.
    held_out: how many others there are.
  """
  count = train + held_out
  if held_out >= ENOUGH or count < 2 or not config.calibration.images:
    return train
  return min(train, count - -(-count // min(int(config.calibration.folds), count)))


def counting(split: Split, config: ml_collections.ConfigDict) -> Split:
  """Returns the images of which a patch counts, at any scale: the others have no score to tell."""
  counted = region_of_interest.counted_patches(config, split.regions)
  if not counted:
    return split
  counts = np.sum([region_of_interest.rows_of_images(each) for each in counted.values()], axis=0)
  return split if counts.all() else split.take(np.flatnonzero(counts))


def in_file_order(split: Split) -> Split:
  """Returns the images in the natural order of their names, in which most were taken."""
  order = sorted(range(len(split)), key=lambda index: natural_key(split.names[index]))
  return split.take(np.array(order, int))


def cross_fit(detector: Detector, normal: Split, progress: Progress) -> Iterator[Scores]:
  """Yields the main maps of normal images, each without its fold.

  No more images than asked for are scored.
  A fold is a run of files: images that were taken one after another are often alike, and one of
  them in the bank would make the others' scores too low. All banks are of one size and screened
  alike, for then one program searches them all.
  """
  settings, images = detector.config.calibration, normal.images
  regions = detector.regions_of(images, normal.regions)
  folds = min(settings.folds, len(images))
  numbers = np.arange(len(images))
  fold_of = numbers * folds // len(images)
  chosen = evenly_spaced(len(images), settings.images)
  counted = region_of_interest.counted_patches(detector.config, regions)
  rows = embeddings(detector, images, regions)
  counts = bank_building.rows_of_images(rows, len(images), counted)
  in_bank = len(images) - -(-len(images) // folds)
  for fold in progress(range(folds)):
    scored = chosen[fold_of[chosen] == fold]
    if not len(scored):
      continue
    kept = numbers[fold_of != fold]
    without = refit(detector, rows, kept[evenly_spaced(len(kept), in_bank)], counts)
    count = -(-len(chosen) // folds)
    padded = normal.take(np.resize(scored, max(count, len(scored))))
    found = without.score(padded.images, regions=padded.regions)
    yield found.first(len(scored)).of_main_map()


def refit(
  detector: Detector,
  rows: Mapping[int, np.ndarray],
  kept: np.ndarray,
  counts: Mapping[int, np.ndarray],
) -> Detector:
  """Returns the detector with memory banks of some images.

  Args:
    detector: whose encoder and whose banks' screens are used.
    rows: f32[N, D] of each scale, the embeddings of all images, one image after another.
    kept: i[M], which images.
    counts: of each scale, i64[images], how many of the rows each image has.
  """
  banks = {}
  for k, bank in detector.banks.items():
    of_images = np.split(rows[k], np.cumsum(counts[k])[:-1])
    reduced = bank_building.reduce_rows(
      np.concatenate([of_images[index] for index in kept]),
      len(kept),
      detector.config,
      iter,
      counts[k][kept],
    )
    banks[k] = bank_building.place(reduced.rows, bank.screen)
  return dataclasses.replace(detector, banks=banks)
