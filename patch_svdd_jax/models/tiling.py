"""Large images in tiles, encoded one after another: memory is that of a tile, not of an image.

A tile is a block of patches of every scale, and its pixels are those that these patches see. Tiles
begin at multiples of all strides and advance by `step` pixels; a patch that begins in the last
stride before the next tile reaches K - S pixels into it, so by the largest K - S they overlap.
Every convolution is VALID: a patch's embedding is that of the whole image, up to rounding, wherever
the seams lie. All tiles of an image have one shape, for which black pixels stand behind its right
and lower edge; patches that would see them are no patches of the image, and are dropped.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.geometry import ImageSize

Grids = dict[int, jax.Array]

# (params, mean f32[H, W, 3] or f32[1, 1, 3], images u8[B, H, W, 3]) -> the grids of embeddings
Encode = Callable[[Mapping[str, Any], jax.Array, jax.Array], Grids]


class Tiles(NamedTuple):
  """The tiles along one axis.

  Attributes:
    number: how many.
    step: pixels from one to the next, a multiple of every stride.
    extent: pixels of each.
  """

  number: int
  step: int
  extent: int

  @property
  def covered(self) -> int:
    """Pixels from the first one's first to the last one's last."""
    return (self.number - 1) * self.step + self.extent


def smallest(strides: Mapping[int, int]) -> tuple[int, int]:
  """Returns the least step of tiles, and by how much they overlap, in pixels."""
  return math.lcm(*strides.values()), max(k - stride for k, stride in strides.items())


def check(tile: int, strides: Mapping[int, int]) -> None:
  """Refuses tiles that hold no patch of every scale.

  Raises:
    UserError: says how large they must be.
  """
  least = sum(smallest(strides))
  if tile and tile < least:
    raise UserError(
      f'config.score.tile={tile}: give at least {least} pixels for patches of '
      f'{", ".join(map(str, strides))} at strides of {", ".join(map(str, strides.values()))}, or '
      '0 for whole images'
    )


def cut(extent: int, tile: int, strides: Mapping[int, int]) -> Tiles:
  """Returns the fewest tiles that hold all patches along an axis, as small as so many can be.

  Args:
    extent: pixels along the axis.
    tile: the most pixels that a tile may have.
    strides: of each receptive field, in pixels.

  Raises:
    UserError: the axis is shorter than a patch.
  """
  unit, overlap = smallest(strides)
  begun = max(geometry.grid_extent(extent, k, stride) * stride for k, stride in strides.items())
  number = -(-begun // ((tile - overlap) // unit * unit))
  step = -(-begun // (number * unit)) * unit
  return Tiles(number, step, step + overlap)


def is_whole(size: ImageSize, tile: int) -> bool:
  """Returns whether images of this size are encoded whole."""
  return not tile or max(size) <= tile


def count(size: ImageSize, tile: int, strides: Mapping[int, int]) -> int:
  """Returns how many tiles an image has; one that is encoded whole has one."""
  if is_whole(size, tile):
    return 1
  return math.prod(cut(extent, tile, strides).number for extent in size)


def in_tiles(encode: Encode, strides: Mapping[int, int], tile: int) -> Encode:
  """Returns `encode`, which goes through images of more than `tile` pixels along a side in tiles.

  One tile of one image is encoded at a time.

  Args:
    encode: gives f32[B, rows, columns, D] for each K.
    strides: of each receptive field, in pixels.
    tile: the most pixels along a side; 0 encodes all images whole.
  """

  def encode_images(params: Mapping[str, Any], mean: jax.Array, images: jax.Array) -> Grids:
    size = images.shape[1:3]
    if is_whole(size, tile):
      return encode(params, mean, images)
    axes = tuple(cut(extent, tile, strides) for extent in size)
    padded_mean = mean if mean.shape[:2] == (1, 1) else pad(mean, axes)

    def one(image: jax.Array) -> Grids:
      padded = pad(image, axes)

      def encode_tile(corner: jax.Array) -> Grids:
        mean_here = padded_mean
        if mean.shape[:2] != (1, 1):
          mean_here = pixels_of(padded_mean, corner, axes)
        return encode(params, mean_here, pixels_of(padded, corner, axes)[None])

      return assemble(encode_tile, size, axes, strides)

    grids: Grids = lax.map(one, images)
    return grids

  return encode_images


def pad(image: jax.Array, axes: tuple[Tiles, ...]) -> jax.Array:
  """Pads [H, W, 3] with zeros below and to the right, as far as the tiles reach."""
  missing = [max(0, axis.covered - side) for axis, side in zip(axes, image.shape[:2], strict=True)]
  return jnp.pad(image, (*((0, pixels) for pixels in missing), (0, 0)))


def pixels_of(image: jax.Array, corner: jax.Array, axes: tuple[Tiles, ...]) -> jax.Array:
  """Returns the pixels of the tile at i32[2], its row and column among the tiles."""
  rows, columns = axes
  first = (corner[0] * rows.step, corner[1] * columns.step, 0)
  return lax.dynamic_slice(image, first, (rows.extent, columns.extent, 3))


def assemble(
  encode_tile: Callable[[jax.Array], Grids],
  size: ImageSize,
  axes: tuple[Tiles, ...],
  strides: Mapping[int, int],
) -> Grids:
  """Joins the grids f32[1, ., ., D] of an image's tiles to f32[rows, columns, D]."""
  rows, columns = axes
  shapes = jax.eval_shape(encode_tile, jnp.zeros(2, jnp.int32))
  empty = {
    k: jnp.zeros(
      (*(axis.number * axis.step // stride for axis in axes), shapes[k].shape[-1]), shapes[k].dtype
    )
    for k, stride in strides.items()
  }

  def put(turn: jax.Array, grids: Grids) -> Grids:
    corner = jnp.stack([turn // columns.number, turn % columns.number])
    found = encode_tile(corner)
    for k, stride in strides.items():
      block = (rows.step // stride, columns.step // stride)
      first = (corner[0] * block[0], corner[1] * block[1], 0)
      # A scale with a smaller overlap has more patches in the tile; those are the next one's.
      own = found[k][0, : block[0], : block[1]]
      grids = grids | {k: lax.dynamic_update_slice(grids[k], own, first)}
    return grids

  grids = lax.fori_loop(0, rows.number * columns.number, put, empty)
  # What lies behind the grid are patches of the padding.
  there = {k: geometry.grid_shape(size, k, stride) for k, stride in strides.items()}
  return {k: grid[: there[k][0], : there[k][1]] for k, grid in grids.items()}
