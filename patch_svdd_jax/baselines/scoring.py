"""From the scores of images or of patches to maps and image scores, batch by batch."""

from collections.abc import Callable

import numpy as np

from patch_svdd_jax.detection import anomaly_map
from patch_svdd_jax.detection.detector import Scores, timed
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.system.batching import Progress, pad_images

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
) -> Scores:
  """Scores of a patch-wise system: maps as the detector's, image scores are their maxima.

  Args:
    score: of images u8[B, H, W, 3] the scores f[B, rows, columns] of their patches.
    images: u8[N, H, W, 3].
    receptive_field: K in pixels.
    stride: S in pixels.
    batch_size: images at a time.
    progress: wraps the iterable of batches.
  """

  def upsample(scores: np.ndarray) -> np.ndarray:
    return np.asarray(
      anomaly_map.upsample(
        scores, image_size=images.shape[1:3], receptive_field=receptive_field, stride=stride
      )
    )

  return _in_batches(scale_name(receptive_field), score, upsample, images, batch_size, progress)


def score_images(
  score: Callable[[np.ndarray], np.ndarray],
  images: np.ndarray,
  *,
  batch_size: int,
  progress: Progress,
) -> Scores:
  """Scores of an image-wise system, which localises nothing: a map has its image's score all over.

  Args:
    score: of images u8[B, H, W, 3] their scores f[B].
    images: u8[N, H, W, 3].
    batch_size: images at a time.
    progress: wraps the iterable of batches.
  """

  def fill(scores: np.ndarray) -> np.ndarray:
    return np.broadcast_to(scores[:, None, None], (len(scores), *images.shape[1:3]))

  return _in_batches(IMAGE, score, fill, images, batch_size, progress)


def _in_batches(
  name: str,
  score: Callable[[np.ndarray], np.ndarray],
  to_maps: Callable[[np.ndarray], np.ndarray],
  images: np.ndarray,
  batch_size: int,
  progress: Progress,
) -> Scores:
  """Scores with a single map; seconds of the stages 'score' and 'map'."""
  batch = min(batch_size, len(images))
  distances, maps = [], []
  seconds: dict[str, float] = {}
  timed_images = 0
  for first in progress(range(0, len(images), batch)):
    if first == batch:
      # The first batch has compiled.
      seconds, timed_images = {}, 0
    # Padded: another size would be compiled anew.
    part = pad_images(images[first : first + batch], batch)
    with timed(seconds, 'score'):
      distances.append(score(part).astype(np.float32))
    with timed(seconds, 'map'):
      maps.append(to_maps(distances[-1]))
    timed_images += batch
  all_maps = np.concatenate(maps)[: len(images)]
  return Scores(
    {name: all_maps},
    {name: anomaly_map.image_score(all_maps)},
    {name: np.concatenate(distances)[: len(images)]},
    {},
    {stage: s / timed_images for stage, s in seconds.items()},
  )
