"""Pairs from densely encoded crops: one pass of the encoder serves all pairs of all scales.

Of each crop there are two views, noised apart, the second a few pixels aside. Patches are points of
the views' embedding maps: a position pair is a point of the first view and a neighbour of it in the
second, a neighbour pair is the same point of both. Pairs that leave the crop are not drawn. The
losses are those of single patches (`sampling`), but the patches of a pair have their view's light
and noise, neighbour pairs too, and offsets are multiples of the encoder's native stride, plus
the views' shift.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from patch_svdd_jax.models.architecture import Architecture
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.training import sampling, windows
from patch_svdd_jax.training.augment import add_noise, augment_and_normalise
from patch_svdd_jax.training.place_tables import CropPlaces


class Points(NamedTuple):
  """Points of P pairs of each kind on the embedding maps of a crop: row and column, i32[P, 2].

  Attributes:
    first: of the position pairs, on the first view's map.
    second: their neighbours, on the second's.
    positions: i32[P] in 0..7.
    anchor: of the neighbour pairs, on both.
  """

  first: jax.Array
  second: jax.Array
  positions: jax.Array
  anchor: jax.Array


class Views(NamedTuple):
  """Two normalised views of C crops, f32[C, S, S, 3], and each scale's pairs i32[C, P, ...]."""

  first: jax.Array
  second: jax.Array
  points: Mapping[int, Points]


def offsets(patch: int, native: int) -> tuple[int, int]:
  """Returns the least and largest offset of a position pair in points: 3K/4 to K - 1 pixels."""
  return -(-(3 * patch // 4) // native), (patch - 1) // native


def draw_points(key: jax.Array, side: int, near: int, far: int, count: int) -> Points:
  """Returns pairs on a map.

  Args:
    key: of the crop at this scale.
    side: points of the map along an axis.
    near: the smallest offset of a position pair, in points.
    far: the largest.
    count: P, pairs of each kind.
  """
  last = jnp.int32(side - 1)

  def one(uniform: jax.Array) -> Points:
    position, offset = sampling.position_offset(uniform[:3], near, far)
    first = sampling.first_of_pair(uniform[3:5], offset, last)
    return Points(first, first + offset, position, sampling.choose(uniform[5:], 0, last))

  return jax.vmap(one)(jax.random.uniform(key, (count, 7)))


def make_sampler(
  arch: Architecture,
  train: ml_collections.ConfigDict,
  count: int,
  crop: windows.Crop = windows.crop,
) -> Callable[..., Views]:
  """Returns sample(keys[C], images, mean, places=None) -> Views, a crop from each key.

  With `CropPlaces` crops and their pairs are drawn from these, else from all there are.

  Args:
    arch: the encoder's.
    train: `config.train`.
    count: of the training images.
    crop: crops the views out of the images.
  """
  side, augment, native = train.crop_size, train.augment, arch.native_stride
  pairs = train.batch_size // train.crops
  reach = sampling.neighbour_reach(arch.scales[0])
  pixels = side * side * 3

  def draw(key: jax.Array, image_size: ImageSize) -> tuple[jax.Array, jax.Array]:
    """Returns the image i32[] and the corners i32[2, 2] of a crop's views."""
    uniform = jax.random.uniform(key, (4,))
    shift = sampling.neighbour_shift(uniform[3], reach)
    last = sampling.last_corner(image_size, side)
    first = sampling.first_of_pair(uniform[1:3], shift, last)
    return sampling.choose(uniform[0], 0, count - 1), jnp.stack([first, first + shift])

  def draw_pairs(key: jax.Array) -> dict[int, Points]:
    return {
      k: draw_points(
        jax.random.fold_in(key, k),
        (side - k) // native + 1,
        *offsets(k, native),
        pairs,
      )
      for k in arch.scales
    }

  def draw_placed(key: jax.Array, places: CropPlaces) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws as `draw` does, out of tables; returns the crop's row i32[] in them, too."""
    uniform = jax.random.uniform(key, (2,))
    row = sampling.choose(uniform[0], 0, len(places.corners) - 1)
    if places.images is None:
      image = sampling.choose(uniform[1], 0, count - 1)
    else:
      image = jnp.asarray(places.images)[row]
    return image, jnp.asarray(places.corners)[row], row

  def draw_placed_pairs(key: jax.Array, row: jax.Array, places: CropPlaces) -> dict[int, Points]:
    def of_scale(k: int) -> Points:
      table = jnp.asarray(places.points[k])[row].astype(jnp.int32)
      uniform = jax.random.uniform(jax.random.fold_in(key, k), (2, pairs))
      position, anchor = table[sampling.choose(uniform, 0, len(table) - 1)]
      return Points(position[:, :2], position[:, 2:4], position[:, 4], anchor[:, 5:])

    return {k: of_scale(k) for k in arch.scales}

  @jax.named_scope('sampling')
  def sample(
    keys: jax.Array, images: jax.Array, mean: jax.Array, places: CropPlaces | None = None
  ) -> Views:
    place_keys, noise_keys, pair_keys = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(
      keys
    )
    if places is None:
      indices, corners = jax.vmap(draw, (0, None))(place_keys, images.shape[1:3])
      points = jax.vmap(draw_pairs)(pair_keys)
    else:
      indices, corners, rows = jax.vmap(draw_placed, (0, None))(place_keys, places)
      points = jax.vmap(draw_placed_pairs, (0, 0, None))(pair_keys, rows, places)
    indices, corners = jnp.tile(indices, 2), corners.swapaxes(0, 1).reshape(-1, 2)
    normals = jax.vmap(lambda key: jax.random.normal(key, (2 * (5 + pixels),)))(noise_keys)
    normals = normals.reshape(-1, 2, 5 + pixels).swapaxes(0, 1).reshape(-1, 5 + pixels)
    views = crop(images, indices, corners, side)
    views = augment_and_normalise(views, corners, mean, normals[:, :2], augment)
    noisy = jax.vmap(add_noise, (0, 0, 0, None))
    views = noisy(views, normals[:, 2:5], normals[:, 5:], augment)
    first, second = jnp.split(views, 2)
    return Views(first, second, points)

  return sample
