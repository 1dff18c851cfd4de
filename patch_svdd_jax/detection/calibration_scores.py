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
from patch_svdd_jax.detection import bank_building, calibration
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import strides_of
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
  settings = detector.config.calibration
  normal = in_file_order(concatenate([train, held_out]))
  if len(normal) < 2 or not settings.images:
    return detector
  if len(held_out) >= ENOUGH:
    chosen = held_out.images[evenly_spaced(len(held_out), settings.images)]
    scores = detector.score(chosen, progress).of_main_map()
  else:
    scores = Scores.concatenate(list(cross_fit(detector, normal.images, progress)))
  looks = dict(zip(appearance.NAMES, normal.appearance.T, strict=True)) | scores.norms
  statistics = {name: values.astype(np.float64) for name, values in looks.items()}
  found = calibration.calibrate(
    scores.images[scores.main_map],
    scores.maps[scores.main_map],
    statistics | {image_size.ASPECT: image_size.aspects(normal.sizes)},
  )
  return dataclasses.replace(detector, calibration=found)


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


def in_file_order(split: Split) -> Split:
  """Returns the images in the natural order of their names, in which most were taken."""
  order = sorted(range(len(split)), key=lambda index: natural_key(split.names[index]))
  return split.take(np.array(order, int))


def cross_fit(detector: Detector, images: np.ndarray, progress: Progress) -> Iterator[Scores]:
  """Yields the main maps of normal images u8[N, H, W, 3], each without its fold.

  No more images than asked for are scored.
  A fold is a run of files: images that were taken one after another are often alike, and one of
  them in the bank would make the others' scores too low. All banks are of one size and screened
  alike, for then one program searches them all.
  """
  settings = detector.config.calibration
  folds = min(settings.folds, len(images))
  numbers = np.arange(len(images))
  fold_of = numbers * folds // len(images)
  chosen = evenly_spaced(len(images), settings.images)
  rows = embedding.embed_to_host(
    architecture.from_config(detector.config.encoder),
    detector.params,
    detector.mean,
    images,
    strides_of(detector.config),
    batch_size=detector.config.score.batch_size,
    tile=detector.config.score.tile,
    features=features.from_config(detector.config.score),
  )
  in_bank = len(images) - -(-len(images) // folds)
  for fold in progress(range(folds)):
    scored = chosen[fold_of[chosen] == fold]
    if not len(scored):
      continue
    kept = numbers[fold_of != fold]
    without = refit(detector, rows, kept[evenly_spaced(len(kept), in_bank)], len(images))
    count = -(-len(chosen) // folds)
    padded = images[np.resize(scored, max(count, len(scored)))]
    yield without.score(padded).first(len(scored)).of_main_map()


def refit(
  detector: Detector, rows: Mapping[int, np.ndarray], kept: np.ndarray, count: int
) -> Detector:
  """Returns the detector with memory banks of some images.

  Args:
    detector: whose encoder and whose banks' screens are used.
    rows: f32[count * patches, D] of each scale, the embeddings of all images.
    kept: i[M], which images.
    count: of all images.
  """
  banks = {}
  for k, bank in detector.banks.items():
    of_image = rows[k].reshape(count, -1, rows[k].shape[-1])
    reduced = bank_building.reduce_rows(
      of_image[kept].reshape(-1, of_image.shape[-1]), len(kept), detector.config, iter
    )
    banks[k] = bank_building.place(reduced.rows, bank.screen)
  return dataclasses.replace(detector, banks=banks)
