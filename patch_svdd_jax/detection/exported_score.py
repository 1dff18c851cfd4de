"""A detector as one pure function of images: what it has learned are constants of the function.

This is what is exported. It runs without this package, on any platform, so it does itself what the
package otherwise does on the host: it brings images to the same light, and judges scores.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patch_svdd_jax.data.lighting import DEVIATION, LARGEST_GAIN, MEAN
from patch_svdd_jax.detection import anomaly_map, region_of_interest
from patch_svdd_jax.detection.calibration import Calibration
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import scale_name, strides_of
from patch_svdd_jax.models.convolution import valid_conv
from patch_svdd_jax.models.encoder import Convolve
from patch_svdd_jax.search import export_search, memory_bank

Results = dict[str, jax.Array]


def make_score(
  detector: Detector, limit: Limits | None, convolve: Convolve = valid_conv, tile: int = 0
) -> Callable[[jax.Array], Results]:
  """Returns score(images u8[B, H, W, 3]), for images of `config.data.image_size` in RGB order.

  It gives 'map' f32[B, H, W], the detector's main map, and 'score' f32[B], its maxima. Where the
  detector is calibrated it gives 'p_value' f32[B] too, and by the limits 'anomalous' bool[B] and
  'anomalous_pixels' bool[B, H, W].

  Args:
    detector: any.
    limit: above which images and pixels are anomalous; None where it is not calibrated.
    convolve: what the encoder convolves with.
    tile: the most pixels along a side that are encoded at a time, 0 for all.

  Raises:
    UserError: the memory bank has fewer rows than a score needs, or each image needs a region of
      its own.
  """
  if detector.needs_regions:
    raise UserError(
      'each image has a region of its own (config.data.region is a folder), which an exported '
      'program does not take: give one region for all images, or use predict or serve'
    )
  config, strides = detector.config, strides_of(detector.config)
  arch = architecture.from_config(config.encoder)
  encode = embedding.make_encode(arch, strides, tile, convolve, features.from_config(config.score))
  params, mean = jax.device_get((detector.params, detector.mean))
  banks = {k: export_search.group(memory_bank.to_rows(detector.banks[k])) for k in strides}
  for k in strides:
    if config.score.neighbours > detector.banks[k].size:
      raise UserError(
        f'config.score.neighbours={config.score.neighbours}: the memory bank of K={k} has '
        f'{detector.banks[k].size} rows'
      )

  regions = None if detector.region is None else detector.region[None]
  counted = region_of_interest.counted_patches(config, regions)

  def map_of(k: int, grid: jax.Array) -> jax.Array:
    bank = jnp.asarray(banks[k])
    options: Any = {
      'image_size': tuple(config.data.image_size),
      'receptive_field': k,
      'stride': strides[k],
    }
    found: jax.Array
    if counted is None:
      found = anomaly_map.upsample(distances(grid, bank, config.score.neighbours), **options)
    else:
      known = distances(grid, bank, config.score.neighbours, np.flatnonzero(counted[k]))
      within = jnp.asarray(counted[k]), jnp.asarray(regions)
      found = anomaly_map.upsample_inside(known, *within, **options)
    return found

  def score(images: jax.Array) -> Results:
    if config.data.light == 'standardised':
      images = standardise_light(images, detector.region)
    grids = encode(params, mean, images)
    maps = anomaly_map.aggregate(
      {scale_name(k): map_of(k, grids[k]) for k in strides}, config.score.scale_weights
    )
    main = maps[detector.main_map]
    results = {'map': main, 'score': main.max(axis=(1, 2))}
    if detector.calibration and limit:
      results |= judge(results, detector.calibration, limit)
    return results

  return score


def distances(
  grids: jax.Array, bank: jax.Array, k: int, places: np.ndarray | None = None
) -> jax.Array:
  """Returns the mean distance f32[B, rows, columns] of each embedding to the k nearest rows.

  With `places`, i64[Q] of the patches of an image, only these are searched for; the others get 0.
  """

  def of_image(grid: jax.Array) -> jax.Array:
    queries = grid.reshape(-1, grid.shape[-1])
    if places is None:
      return export_search.mean_distance(queries, bank, k).reshape(grid.shape[:-1])
    found = export_search.mean_distance(queries[places], bank, k)
    return jnp.zeros(len(queries)).at[places].set(found).reshape(grid.shape[:-1])

  # Image by image: the memory that is needed does not grow with the batch.
  found: jax.Array = lax.map(of_image, grids)
  return found


def judge(results: Results, calibration: Calibration, limit: Limits) -> Results:
  """Judges scores and maps as `inspection` does."""
  normal = jnp.asarray(calibration.scores, jnp.float32)
  as_high = jnp.sum(normal[None] >= results['score'][:, None], axis=1)
  return {
    'p_value': (1 + as_high) / jnp.float32(1 + calibration.images),
    'anomalous': results['score'] > limit.image.value,
    'anomalous_pixels': results['map'] > limit.pixel.value,
  }


def standardise_light(images: jax.Array, region: np.ndarray | None = None) -> jax.Array:
  """Computes `data.lighting.standardise` in jax, u8[B, H, W, 3], by a region bool[H, W].

  A value that lies halfway between two grey levels may become the other one.
  """
  height, width, channels = images.shape[1:]
  # What a sum along a row is divided by, and then the sum of those.
  of_each, of_rows = width * channels, float(height)
  if region is not None and region.any():
    of_rows = np.count_nonzero(region) / width

  def mean_of(values: jax.Array) -> jax.Array:
    """Returns the mean of each image i32[B, H, W, 3], f32[B, 1, 1, 1]; row sums are exact."""
    if region is not None and region.any():
      values = jnp.where(region[None, :, :, None], values, 0)
    of_row = jnp.sum(values, axis=(2, 3), keepdims=True).astype(jnp.float32) / of_each
    return jnp.sum(of_row, axis=1, keepdims=True) / of_rows

  levels = images.astype(jnp.int32)
  mean = mean_of(levels)
  # About the whole number next to the mean squares are whole, too, and hardly anything cancels.
  near = jnp.rint(mean)
  variance = mean_of(jnp.square(levels - near.astype(jnp.int32))) - jnp.square(mean - near)
  deviation = jnp.sqrt(jnp.maximum(variance, 0.0))
  gain = jnp.minimum(DEVIATION / jnp.maximum(deviation, 1e-6), LARGEST_GAIN)
  lit = MEAN + gain * (levels.astype(jnp.float32) - mean)
  return jnp.clip(jnp.rint(lit), 0, 255).astype(jnp.uint8)
