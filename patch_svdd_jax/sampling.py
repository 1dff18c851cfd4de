"""Patch pairs, drawn on the device from the training images that live there.

All coordinates are those of a patch's top left pixel, (row, column). Functions of one pair are
vmapped over keys, so that a pair depends on its key alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax import lax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.geometry import ImageSize
from patch_svdd_jax.standardisation import standardise

# (row, column) directions of the 8 neighbours, in reading order.
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


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
  """Integers low <= i <= high from uniform numbers in [0, 1).

  All numbers of a pair come from one draw of the generator, whose every call costs seconds of
  compilation on a CPU.
  """
  return low + jnp.floor(uniform * (high + 1 - low)).astype(jnp.int32)


def last_corner(image_size: ImageSize, patch: int) -> jax.Array:
  """The largest corner of a patch inside the image, i32[2]."""
  return jnp.array(image_size, jnp.int32) - patch


def neighbour_pair(
  key: jax.Array, image_size: ImageSize, patch: int
) -> tuple[jax.Array, jax.Array]:
  """Corners of two patches a few pixels apart, for L_SVDD' (Yi & Yoon 2020, section 3.2).

  The second is the first shifted by up to K // 32 pixels (at least 1) per axis, never by (0, 0),
  then clipped to the image, as the authors do; the clipping can make the two identical.

  Returns:
    Two corners i32[2].
  """
  uniform = jax.random.uniform(key, (3,))
  last = last_corner(image_size, patch)
  first = choose(uniform[:2], 0, last)
  reach = max(1, patch // 32)
  side = 2 * reach + 1
  # Of the side * side shifts the middle one is (0, 0): draw among the others.
  draw = choose(uniform[2], 0, side * side - 2)
  draw += draw >= side * side // 2
  shift = jnp.stack([draw // side, draw % side]) - reach
  return first, jnp.clip(first + shift, 0, last)


def position_pair(key: jax.Array, image_size: ImageSize, patch: int, mode: str) -> PositionPair:
  """Corners of a patch and of one of its 8 neighbours, for L_SSL (section 3.3).

  The neighbour's offset is 3K/4 + U[0, K/4) along each axis of its direction.

  Args:
    key: the pair's key.
    image_size: (height, width) in pixels.
    patch: K in pixels.
    mode: 'clip' moves a second patch that leaves the image back into it (the authors' way, though
      the offset, and at a border even the direction, is then another); 'valid' draws the first
      patch among those whose neighbour lies inside.
  """
  uniform = jax.random.uniform(key, (5,))
  position = choose(uniform[0], 0, len(DIRECTIONS) - 1)
  distance = 3 * patch // 4 + choose(uniform[1:3], 0, patch // 4 - 1)
  offset = jnp.array(DIRECTIONS, jnp.int32)[position] * distance
  last = last_corner(image_size, patch)
  if mode == 'valid':
    first = choose(uniform[3:], jnp.maximum(0, -offset), last - jnp.maximum(0, offset))
    return PositionPair(first, first + offset, position)
  first = choose(uniform[3:], 0, last)
  return PositionPair(first, jnp.clip(first + offset, 0, last), position)


def check_pairs(image_size: ImageSize, patch: int, mode: str) -> None:
  """Refuses images from which pairs of this scale cannot be drawn.

  Raises:
    UserError: the image is too small for the patch or its neighbours, or the mode is unknown.
  """
  if mode not in ('clip', 'valid'):
    raise UserError(f"config.train.position_pairs={mode!r}: give 'clip' or 'valid'")
  # The farthest valid neighbour starts K - 1 pixels away.
  needed = patch + 1 if mode == 'clip' else 2 * patch - 1
  if min(image_size) < needed:
    raise UserError(
      f'images of {image_size[0]}x{image_size[1]} pixels are too small for {mode!r} pairs of '
      f'{patch}-pixel patches, which need {needed}: enlarge '
      f'config.data.image_size or drop the scale'
    )


def relight(key: jax.Array, patch: jax.Array, brightness: float, gain: float) -> jax.Array:
  """A patch f32[K, K, 3] in grey levels under other light: x * exp(gain n) + 255 brightness n'."""
  factor, shift = jax.random.normal(key, (2,))
  return patch * jnp.exp(gain * factor) + 255 * brightness * shift


def perturb(key: jax.Array, patch: jax.Array, rgb_shift: float, pixel_noise: float) -> jax.Array:
  """A standardised patch f32[K, K, 3] plus a shift of each channel and noise at each pixel."""
  shift_key, noise_key = jax.random.split(key)
  shift = rgb_shift * jax.random.normal(shift_key, (1, 1, 3))
  # The same numbers as a draw of three dimensions, which takes a CPU three times longer.
  noise = jax.random.normal(noise_key, (patch.size,)).reshape(patch.shape)
  return patch + shift + pixel_noise * noise


def make_cut(patch: int, augment: ml_collections.ConfigDict) -> Callable[..., jax.Array]:
  """Returns cut(key, images, mean, index, corner) -> a lit and standardised patch f32[K, K, 3]."""

  def cut(
    key: jax.Array, images: jax.Array, mean: jax.Array, index: jax.Array, corner: jax.Array
  ) -> jax.Array:
    row, column = corner
    pixels = lax.dynamic_slice(images, (index, row, column, 0), (1, patch, patch, 3))[0]
    if mean.shape[:2] != (1, 1):
      mean = lax.dynamic_slice(mean, (row, column, 0), (patch, patch, 3))
    pixels = pixels.astype(jnp.float32)
    if augment.brightness or augment.gain:
      pixels = relight(key, pixels, augment.brightness, augment.gain)
    return standardise(pixels, mean)

  return cut


def make_sampler(
  patch: int, batch_size: int, mode: str, augment: ml_collections.ConfigDict
) -> Callable[[jax.Array, jax.Array, jax.Array], Pairs]:
  """Returns sample(key, images u8[N, H, W, 3], mean) -> Pairs of one scale.

  Args:
    patch: K in pixels.
    batch_size: B, position pairs and as many neighbour pairs.
    mode: of the position pairs, 'clip' or 'valid'.
    augment: `config.train.augment`; noise goes to the position pairs, light to all.
  """
  cut = make_cut(patch, augment)

  def cut_both(
    key: jax.Array, images: jax.Array, mean: jax.Array, corners: tuple[jax.Array, jax.Array]
  ) -> jax.Array:
    image_key, light_key = jax.random.split(key)
    index = choose(jax.random.uniform(image_key), 0, len(images) - 1)
    in_one_image = jax.vmap(cut, (0, None, None, None, 0))
    return in_one_image(jax.random.split(light_key), images, mean, index, jnp.stack(corners))

  def position(key: jax.Array, images: jax.Array, mean: jax.Array) -> tuple[jax.Array, ...]:
    pair_key, cut_key, noise_key = jax.random.split(key, 3)
    pair = position_pair(pair_key, images.shape[1:3], patch, mode)
    patches = cut_both(cut_key, images, mean, (pair.first, pair.second))
    noisy = jax.vmap(perturb, (0, 0, None, None))
    first, second = noisy(
      jax.random.split(noise_key), patches, augment.rgb_shift, augment.pixel_noise
    )
    return first, second, pair.position

  def neighbour(key: jax.Array, images: jax.Array, mean: jax.Array) -> tuple[jax.Array, ...]:
    pair_key, cut_key = jax.random.split(key)
    first, second = cut_both(
      cut_key, images, mean, neighbour_pair(pair_key, images.shape[1:3], patch)
    )
    return first, second

  def sample(key: jax.Array, images: jax.Array, mean: jax.Array) -> Pairs:
    position_key, neighbour_key = jax.random.split(key)
    over_keys = (0, None, None)
    positions = jax.vmap(position, over_keys)(
      jax.random.split(position_key, batch_size), images, mean
    )
    neighbours = jax.vmap(neighbour, over_keys)(
      jax.random.split(neighbour_key, batch_size), images, mean
    )
    return Pairs(*positions, *neighbours)

  return sample
