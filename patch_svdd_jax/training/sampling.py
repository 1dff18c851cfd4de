"""Pairs of patches, drawn on the device from the training images that live there.

All coordinates are those of a patch's top left pixel, (row, column). A pair is drawn from its own
key alone, so that how pairs are divided over devices changes none of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.training import windows
from patch_svdd_jax.training.augment import add_noise, augment_and_normalise
from patch_svdd_jax.training.place_tables import PairTable, PatchPlaces

# (row, column) directions of the 8 neighbours, in reading order.
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

# Uniform numbers that a pair is drawn from.
FOR_POSITION, FOR_NEIGHBOUR = 5, 3


class PositionPair(NamedTuple):
  """Corners of two patches i32[2] and which neighbour the second is, i32[] in 0..7."""

  first: jax.Array
  second: jax.Array
  position: jax.Array


class Pairs(NamedTuple):
  """Standardised patches of one scale, f32[B, K, K, 3], and i32[B] for the position pairs."""

  position_first: jax.Array
  position_second: jax.Array
  positions: jax.Array
  neighbour_first: jax.Array
  neighbour_second: jax.Array


def choose(uniform: jax.Array, low: jax.Array | int, high: jax.Array | int) -> jax.Array:
  """Returns integers low <= i <= high from uniform numbers in [0, 1).

  All numbers of a pair come from one draw of the generator, whose every call costs seconds of
  compilation on a CPU.
  """
  return low + jnp.floor(uniform * (high + 1 - low)).astype(jnp.int32)


def last_corner(image_size: ImageSize, patch: int) -> jax.Array:
  """Returns the largest corner of a patch inside the image, i32[2]."""
  return jnp.array(image_size, jnp.int32) - patch


def neighbour_reach(patch: int) -> int:
  """Returns how far a neighbour is shifted at most: K // 32 pixels, at least 1 (section 3.2)."""
  return max(1, patch // 32)


def neighbour_shift(uniform: jax.Array, reach: int) -> jax.Array:
  """Returns a shift i32[2] of up to `reach` per axis, never (0, 0), from one uniform number."""
  side = 2 * reach + 1
  # Of the side * side shifts the middle one is (0, 0): draw among the others.
  draw = choose(uniform, 0, side * side - 2)
  draw += draw >= side * side // 2
  return jnp.stack([draw // side, draw % side]) - reach


def neighbour_pair(
  uniform: jax.Array, image_size: ImageSize, patch: int
) -> tuple[jax.Array, jax.Array]:
  """Returns corners of two patches a few pixels apart, for L_SVDD' (Yi & Yoon 2020, section 3.2).

  The second is the first shifted by up to K // 32 pixels (at least 1) per axis, never by (0, 0),
  then clipped to the image, as the authors do; the clipping can make the two identical.

  Args:
    uniform: f32[3], uniform numbers.
    image_size: (height, width) in pixels.
    patch: K in pixels.

  Returns:
    Two corners i32[2].
  """
  last = last_corner(image_size, patch)
  first = choose(uniform[:2], 0, last)
  shift = neighbour_shift(uniform[2], neighbour_reach(patch))
  return first, jnp.clip(first + shift, 0, last)


def position_offset(uniform: jax.Array, near: int, far: int) -> tuple[jax.Array, jax.Array]:
  """Returns one of the 8 positions i32[], and an offset i32[2] of `near` to `far` along its axes.

  Args:
    uniform: f32[3], uniform numbers.
    near: the smallest offset.
    far: the largest.
  """
  position = choose(uniform[0], 0, len(DIRECTIONS) - 1)
  distance = choose(uniform[1:], near, far)
  return position, jnp.array(DIRECTIONS, jnp.int32)[position] * distance


def first_of_pair(uniform: jax.Array, offset: jax.Array, last: jax.Array) -> jax.Array:
  """Returns a corner i32[2] from which the offset leads to no other side of 0 or `last`."""
  return choose(uniform, jnp.maximum(0, -offset), last - jnp.maximum(0, offset))


def position_pair(uniform: jax.Array, image_size: ImageSize, patch: int, mode: str) -> PositionPair:
  """Returns corners of a patch and of one of its 8 neighbours, for L_SSL (section 3.3).

  The neighbour's offset is 3K/4 + U[0, K/4) along each axis of its direction.

  Args:
    uniform: f32[5], uniform numbers.
    image_size: (height, width) in pixels.
    patch: K in pixels.
    mode: 'clip' moves a second patch that leaves the image back into it (the authors' way, though
      the offset, and at a border even the direction, is then another); 'valid' draws the first
      patch among those whose neighbour lies inside.
  """
  position, offset = position_offset(uniform[:3], 3 * patch // 4, patch - 1)
  last = last_corner(image_size, patch)
  if mode == 'valid':
    first = first_of_pair(uniform[3:], offset, last)
    return PositionPair(first, first + offset, position)
  first = choose(uniform[3:], 0, last)
  return PositionPair(first, jnp.clip(first + offset, 0, last), position)


def tabled_pair(
  uniform: jax.Array, table: PairTable, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns a pair out of a table: its image i32[], both corners i32[2, 2] and its kind i32[].

  Args:
    uniform: f32[3], uniform numbers.
    table: of the pairs of one scale.
    count: of the images, all of which have the table in common unless it names them.
  """
  kinds, starts, counts, corners = map(
    jnp.asarray, (table.kinds, table.starts, table.counts, table.corners)
  )
  number = choose(uniform[0], 0, len(kinds) - 1)
  row = starts[number] + choose(uniform[1], 0, counts[number] - 1)
  if table.images is None:
    image = choose(uniform[2], 0, count - 1)
  else:
    image = jnp.asarray(table.images)[row]
  return image, corners[row].astype(jnp.int32), kinds[number]


def make_sampler(
  patch: int,
  mode: str,
  augment: ml_collections.ConfigDict,
  count: int,
  crop: windows.Crop = windows.crop,
) -> Callable[..., Pairs]:
  """Returns sample(keys[B], images, mean, places=None) -> Pairs of one scale.

  From each key comes a pair of each kind. They are drawn from the scale's `PatchPlaces`, or else
  from all there are.

  Args:
    patch: K in pixels.
    mode: of the position pairs, 'clip' or 'valid'.
    augment: `config.train.augment`; noise goes to the position pairs, light to all.
    count: of the training images.
    crop: crops the patches out of the images.
  """
  pixels = patch * patch * 3

  def draw(key: jax.Array, image_size: ImageSize) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one pair of each kind: images i32[4], corners i32[4, 2], the position i32[]."""
    uniform = jax.random.uniform(key, (2 + FOR_POSITION + FOR_NEIGHBOUR,))
    in_position, in_neighbour = choose(uniform[:2], 0, count - 1)
    pair = position_pair(uniform[2:][:FOR_POSITION], image_size, patch, mode)
    neighbours = neighbour_pair(uniform[-FOR_NEIGHBOUR:], image_size, patch)
    images = jnp.stack([in_position, in_position, in_neighbour, in_neighbour])
    return images, jnp.stack([pair.first, pair.second, *neighbours]), pair.position

  def draw_placed(key: jax.Array, places: PatchPlaces) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws as `draw` does, out of tables."""
    uniform = jax.random.uniform(key, (6,))
    in_position, pair, position = tabled_pair(uniform[:3], places.positions, count)
    in_neighbour, neighbours, _ = tabled_pair(uniform[3:], places.neighbours, count)
    images = jnp.stack([in_position, in_position, in_neighbour, in_neighbour])
    return images, jnp.concatenate([pair, neighbours]), position

  @jax.named_scope('sampling')
  def sample(
    keys: jax.Array, images: jax.Array, mean: jax.Array, places: PatchPlaces | None = None
  ) -> Pairs:
    place_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    if places is None:
      indices, corners, positions = jax.vmap(draw, (0, None))(place_keys, images.shape[1:3])
    else:
      indices, corners, positions = jax.vmap(draw_placed, (0, None))(place_keys, places)
    # All first patches of position pairs, then all second ones, and those of neighbour pairs.
    indices, corners = indices.T.reshape(-1), corners.swapaxes(0, 1).reshape(-1, 2)
    # One draw for light, channels and pixels: the generator's calls are slow to compile.
    normals = jax.vmap(lambda key: jax.random.normal(key, (8 + 2 * (3 + pixels),)))(noise_keys)
    lighting = normals[:, :8].reshape(-1, 4, 2).swapaxes(0, 1).reshape(-1, 2)
    noise = normals[:, 8:].reshape(-1, 2, 3 + pixels).swapaxes(0, 1)
    patches = augment_and_normalise(
      crop(images, indices, corners, patch), corners, mean, lighting, augment
    )
    patches = patches.reshape(4, len(keys), patch, patch, 3)
    noisy = jax.vmap(jax.vmap(add_noise, (0, 0, 0, None)), (0, 0, 0, None))
    first, second = noisy(patches[:2], noise[..., :3], noise[..., 3:], augment)
    return Pairs(first, second, positions, patches[2], patches[3])

  return sample
