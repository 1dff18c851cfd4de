"""From the scores of images or of patches to maps and image scores, batch by batch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from patch_svdd_jax.baselines import patches
from patch_svdd_jax.detection import anomaly_map
from patch_svdd_jax.detection.scores import Scores, in_batches, timed
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.system.batching import Progress

# The name of the map of a system that scores whole images.
IMAGE = 'image'


def score_patches(
  score: Callable[[np.ndarray], np.ndarray],
  images: np.ndarray,
  *,
  receptive_field: int,
  stride: int,
  batch_size: int,
  progress: Progress,
  regions: np.ndarray | None = None,
  share: float = 1.0,
) -> Scores:
  """Returns scores of a patch-wise system: maps as the detector's, image scores their maxima.

  Args:
    score: of images u8[B, H, W, 3] the scores f[B, rows, columns] of their patches.
    images: u8[N, H, W, 3].
    receptive_field: K in pixels.
    stride: S in pixels.
    batch_size: images at a time.
    progress: wraps the iterable of batches.
    regions: bool[N, H, W], of these images; None: all of each counts.
    share: of a patch's pixels that lie in the region at least, for it to count.
  """
  options: Any = {
    'image_size': images.shape[1:3],
    'receptive_field': receptive_field,
    'stride': stride,
  }

  def upsample(scores: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    if inside is None:
      return np.asarray(anomaly_map.upsample(scores, **options))
    counted = geometry.patches_inside(inside, receptive_field, stride, share)
    return np.asarray(anomaly_map.upsample_inside(scores, counted, inside, **options))

  name = scale_name(receptive_field)
  return _of_one_map(name, score, upsample, images, batch_size, progress, regions)


def score_images(
  score: Callable[[np.ndarray], np.ndarray],
  images: np.ndarray,
  *,
  batch_size: int,
  progress: Progress,
  regions: np.ndarray | None = None,
) -> Scores:
  """Returns scores of an image-wise system, whose maps are constant: it localises nothing.

  Of images with regions it sees these alone, see `patches.black_outside`.

  Args:
    score: of images u8[B, H, W, 3] their scores f[B].
    images: u8[N, H, W, 3].
    batch_size: images at a time.
    progress: wraps the iterable of batches.
    regions: bool[N, H, W], of these images; None: all of each counts.
  """

  def fill(scores: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    maps = np.broadcast_to(scores[:, None, None], (len(scores), *images.shape[1:3]))
    return maps if inside is None else np.where(inside, maps, np.float32(0))

  seen = patches.black_outside(images, regions)
  return _of_one_map(IMAGE, score, fill, seen, batch_size, progress, regions)


def _of_one_map(
  name: str,
  score: Callable[[np.ndarray], np.ndarray],
  to_maps: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
  images: np.ndarray,
  batch_size: int,
  progress: Progress,
  regions: np.ndarray | None,
) -> Scores:
  """Returns scores with a single map, and seconds of the stages 'score' and 'map'."""

  def score_batch(part: np.ndarray, inside: np.ndarray | None) -> Scores:
    seconds: dict[str, float] = {}
    with timed(seconds, 'score', len(part)):
      distances = score(part).astype(np.float32)
    with timed(seconds, 'map', len(part)):
      maps = to_maps(distances, inside)
    top = anomaly_map.image_score(maps, inside)
    return Scores({name: maps}, {name: top}, {name: distances}, {}, seconds)

  return in_batches(score_batch, images, min(batch_size, len(images)), progress, regions)
