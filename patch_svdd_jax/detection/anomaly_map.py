"""From patch distances to pixel maps, to maps of several scales together, to an image's score."""

import functools
from collections.abc import Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.system.sharding import PRECISION


@functools.partial(jax.jit, static_argnames=('image_size', 'receptive_field', 'stride'))
@jax.named_scope('map')
def upsample(
  distances: jax.Array, *, image_size: ImageSize, receptive_field: int, stride: int
) -> jax.Array:
  """Gives each pixel the mean of the patches that cover it  (Yi & Yoon 2020, section 3.5).

  Args:
    distances: f32[B, rows, columns], of each patch to the nearest normal one.
    image_size: (height, width) in pixels.
    receptive_field: K in pixels.
    stride: S in pixels.

  Returns:
    f32[B, height, width].
  """
  height, width = image_size
  rows = geometry.coverage_weights(height, receptive_field, stride)
  columns = geometry.coverage_weights(width, receptive_field, stride)
  return jnp.einsum('hr,brc,wc->bhw', rows, distances, columns, precision=PRECISION)


@functools.partial(jax.jit, static_argnames=('image_size', 'receptive_field', 'stride'))
@jax.named_scope('map')
def upsample_inside(
  distances: jax.Array,
  counted: jax.Array,
  regions: jax.Array,
  *,
  image_size: ImageSize,
  receptive_field: int,
  stride: int,
) -> jax.Array:
  """Returns each pixel of a region becomes the mean of the patches that count and cover it.

  With d_q the distance of patch q, c_q = 1 where it counts and 0 where it does not, and w_pq its
  weight in the mean over all patches that cover pixel p (`upsample`), pixel p of the region has

    sum_q w_pq c_q d_q / sum_q w_pq c_q,

  and 0 where no patch that counts covers it. All other pixels have 0.

  Args:
    distances: f32[B, rows, columns]; of a patch that does not count it may be any, even NaN.
    counted: bool[B, rows, columns], or bool[1, rows, columns] for all images.
    regions: bool[B, height, width], or bool[1, height, width].
    image_size: (height, width) in pixels.
    receptive_field: K in pixels.
    stride: S in pixels.

  Returns:
    f32[B, height, width].
  """
  place = functools.partial(
    upsample, image_size=image_size, receptive_field=receptive_field, stride=stride
  )
  total, weight = place(jnp.where(counted, distances, 0.0)), place(counted.astype(jnp.float32))
  inside = regions & (weight > 0)
  return jnp.where(inside, total / jnp.where(inside, weight, 1.0), 0.0)


def aggregate(maps: Mapping[str, jax.Array], weights: Sequence[float] = ()) -> dict[str, jax.Array]:
  """Returns the maps of all scales, their 'sum' and their 'product' (eq. 8), f32[B, H, W] each.

  With weights w the product is prod_k map_k ^ w_k, a weighted geometric mean but for its exponent:
  a scale whose distances vary more, or say less, then counts less. Eq. 8 has w = 1.

  One scale alone is its own sum and product, and stands for itself.

  Args:
    maps: f32[B, H, W] of each scale, none below 0.
    weights: w of each map in their order, at least 0; none: 1 each.
  """
  if len(maps) == 1:
    return dict(maps)
  stacked = jnp.stack(list(maps.values()))
  weighed = stacked
  if weights:
    weighed **= jnp.array(weights, jnp.float32).reshape(-1, *[1] * (stacked.ndim - 1))
  return {**maps, 'sum': stacked.sum(axis=0), 'product': weighed.prod(axis=0)}


def main_map(names: Collection[str]) -> str:
  """Returns the name, of those `aggregate` gives, of the map that verdicts are made by."""
  return 'product' if 'product' in names else next(iter(names))


def image_score(maps: np.ndarray, regions: np.ndarray | None = None) -> np.ndarray:
  """Returns the largest value of each map f32[B, H, W], in its region bool[H, W]: f32[B].

  That of an empty region is 0.
  """
  if regions is not None:
    maps = np.where(regions.any(axis=(1, 2), keepdims=True) & ~regions, -np.inf, maps)
  scores: np.ndarray = maps.max(axis=(1, 2))
  return scores
