"""What a detector scores normal images that it has not learned, by which it is calibrated.

Held-out images are such; where too few are held out to ensure a false-alarm rate of 1 %, all normal
images are scored instead, each by a memory bank without its fold (cross-fitting). The encoder is
then one that has seen them: what that does to the rate is measured in docs/calibration.md.
"""

import dataclasses
from collections.abc import Callable, Iterable

import ml_collections
import numpy as np

from patch_svdd_jax import bank_building, calibration
from patch_svdd_jax.data import Split, appearance
from patch_svdd_jax.data.held_out import evenly
from patch_svdd_jax.detector import Detector, strides_of
from patch_svdd_jax.embedding import Progress
from patch_svdd_jax.errors import UserError

# So many held-out images ensure a false-alarm rate of 1 %.
ENOUGH = 99


def check(settings: ml_collections.ConfigDict) -> None:
  """Refuses settings of `config.calibration` that mean nothing.

  Raises:
    UserError: names the key.
  """
  if settings.images < 0:
    raise UserError(f'config.calibration.images={settings.images}: give at least 1, or 0 for none')
  if settings.folds < 2:
    raise UserError(f'config.calibration.folds={settings.folds}: give at least 2')


def calibrate(
  detector: Detector, train: Split, held_out: Split, progress: Progress = iter
) -> Detector:
  """The detector with a calibration; without one where there is a single normal image.

  Args:
    detector: fitted to the images of `train`.
    train: normal images.
    held_out: others; N = 0 if there are none.
    progress: wraps the iterable of the groups of images that are scored.
  """
  settings = detector.config.calibration
  check(settings)
  normal = join(train, held_out)
  if len(normal) < 2:
    return detector
  if len(held_out) >= ENOUGH:
    scored = held_out.take(evenly(len(held_out), settings.images))
    folds: list[Callable[[], tuple[Detector, np.ndarray]]] = [lambda: (detector, scored.images)]
  else:
    folds = cross_fitting(detector, normal.images, settings)
  parts = [measure(*fold()) for fold in each(folds, progress)]
  scores, maps = (np.concatenate(values) for values in list(zip(*parts, strict=True))[:2])
  norms = {
    name: np.concatenate([part[2][name] for part in parts]).astype(np.float64)
    for name in parts[0][2]
  }
  looks = dict(zip(appearance.NAMES, normal.appearance.T.astype(np.float64), strict=True))
  found = calibration.calibrate(scores, maps, looks | norms)
  return dataclasses.replace(detector, calibration=found)


def join(one: Split, other: Split) -> Split:
  """The images of both; the masks of normal images say nothing and are left out."""
  return dataclasses.replace(
    one,
    **{
      name: np.concatenate([getattr(one, name), getattr(other, name)])
      for name in ('images', 'masks', 'has_mask', 'labels', 'sizes', 'appearance')
    },
    defects=one.defects + other.defects,
    names=one.names + other.names,
  )


def each(folds: list[Callable], progress: Progress) -> Iterable[Callable]:
  """The folds, one after the other, with progress."""
  return (folds[index] for index in progress(range(len(folds))))


def cross_fitting(
  detector: Detector, images: np.ndarray, settings: ml_collections.ConfigDict
) -> list[Callable[[], tuple[Detector, np.ndarray]]]:
  """For each fold what makes a detector without it, and its images u8[n, H, W, 3] to be scored.

  Every `folds`-th image is of one fold, so that all are alike.
  """
  folds = min(settings.folds, len(images))
  scored = np.isin(np.arange(len(images)), evenly(len(images), settings.images))
  numbers = np.arange(len(images)) % folds

  def make(fold: int) -> tuple[Detector, np.ndarray]:
    return refit(detector, images[numbers != fold]), images[scored & (numbers == fold)]

  return [
    lambda fold=fold: make(fold)  # type: ignore[misc]
    for fold in range(folds)
    if (scored & (numbers == fold)).any()
  ]


def refit(detector: Detector, images: np.ndarray) -> Detector:
  """The detector with memory banks of the normal images u8[N, H, W, 3]."""
  banks = bank_building.build(
    detector.config, detector.params, detector.mean, images, strides_of(detector.config)
  )
  return dataclasses.replace(detector, banks=banks)


def measure(
  detector: Detector, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
  """Scores f32[N] and maps f32[N, H, W] of the last map, and the embeddings' norms by name."""
  scores = detector.score(images)
  name = detector.last_map
  return scores.images[name], scores.maps[name], scores.norms
