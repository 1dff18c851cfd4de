"""Windows of the training images, which live on the devices, and what light does to them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from patch_svdd_jax.system.sharding import DEVICES, REPLICATED, SHARDED

# (images u8[N, H, W, 3], indices i32[B], corners i32[B, 2], side) -> u8[B, side, side, 3]
Crop = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]


def crop(images: jax.Array, indices: jax.Array, corners: jax.Array, side: int) -> jax.Array:
  """Returns windows u8[B, side, side, 3] of images u8[N, H, W, 3] that are all on this device.

  Args:
    images: u8[N, H, W, 3].
    indices: i32[B], which image each lies in.
    corners: i32[B, 2], the row and column of its top left pixel.
    side: pixels.
  """

  def one(index: jax.Array, corner: jax.Array) -> jax.Array:
    return lax.dynamic_slice(images, (index, *corner, 0), (1, side, side, 3))[0]

  return jax.vmap(one)(indices, corners)


def crop_sharded(images: jax.Array, indices: jax.Array, corners: jax.Array, side: int) -> jax.Array:
  """Crops images of which each device of a slice holds a run, in a map over DEVICES.

  Every device crops what those of its slice ask of its images, and sends it to who asked. As
  bytes: a window has pixels on one device and zeros on the others, so their sum is exact.
  """
  indices, corners = lax.all_gather((indices, corners), DEVICES, tiled=True)
  indices -= lax.axis_index(DEVICES) * len(images)
  here = (indices >= 0) & (indices < len(images))
  windows = crop(images, jnp.clip(indices, 0, len(images) - 1), corners, side)
  mine = jnp.where(here[:, None, None, None], windows, 0)
  cropped: jax.Array = lax.psum_scatter(mine, DEVICES, tiled=True)
  return cropped


# How `config.train.images` lays the training images on the devices, and how they are cropped.
PLACEMENTS: dict[str, tuple[PartitionSpec, Crop]] = {
  'replicated': (REPLICATED, crop),
  'sharded': (SHARDED, crop_sharded),
}


def padded_count(count: int, spec: PartitionSpec, mesh: Mesh) -> int:
  """Counts images that lie on a slice where there are `count`: sharded, equal on each device."""
  devices = mesh.shape[DEVICES]
  return -(-count // devices) * devices if spec == SHARDED else count
