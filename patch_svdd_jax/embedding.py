"""The embedding pass: every patch of every image, on all local devices, by `jax.pmap`.

Images are dealt to the devices in runs, padded so that every device gets as many, and the
embeddings stay on the device that made them: a memory bank is born sharded.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax import geometry
from patch_svdd_jax.architecture import Architecture
from patch_svdd_jax.encoders import Encoder
from patch_svdd_jax.standardisation import standardise
from patch_svdd_jax.training import Params

DEVICES = 'devices'
Progress = Callable[[Iterable[int]], Iterable[int]]
Tree = TypeVar('Tree')


class Embeddings(NamedTuple):
  """The embeddings of one scale.

  Attributes:
    rows: f32[devices, images, patches, D], sharded over the devices.
    valid: bool[devices, images], False where an image is padding.
  """

  rows: jax.Array
  valid: jax.Array


def local_mesh() -> Mesh:
  """All local devices in a row."""
  return Mesh(np.array(jax.local_devices()), (DEVICES,))


def replicate(tree: Tree) -> Tree:
  """Puts a tree on every local device, once."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec()))


def make_encode(architecture: Architecture, strides: Mapping[int, int]) -> Callable:
  """Returns encode(params, mean, images u8[B, H, W, 3]) -> f32[B, rows, columns, D] for each K."""
  encoder = Encoder(architecture)

  def encode(params: Params, mean: jax.Array, images: jax.Array) -> Any:
    return encoder.apply({'params': params}, standardise(images, mean), strides)

  return encode


def make_embed_batch(architecture: Architecture, strides: Mapping[int, int]) -> Callable:
  """Returns the pmapped embed(params, mean, images u8[devices, B, H, W, 3]) for queries.

  `params` and `mean` are replicated; the result is f32[devices, B, rows, columns, D] for each K.
  """
  return jax.pmap(make_encode(architecture, strides), DEVICES, in_axes=(None, None, 0), out_axes=0)


def make_fill(architecture: Architecture, strides: Mapping[int, int]) -> Callable:
  """Returns the pmapped fill(rows, params, mean, images, first) -> rows.

  It writes the embeddings of a batch of images into the rows of each device, in place (they are
  donated), from image `first` on.
  """
  encode = make_encode(architecture, strides)

  def fill(
    rows: dict[int, jax.Array], params: Params, mean: jax.Array, images: jax.Array, first: jax.Array
  ) -> dict[int, jax.Array]:
    grids = encode(params, mean, images)
    flat = {k: grid.reshape(grid.shape[0], -1, grid.shape[-1]) for k, grid in grids.items()}
    return {k: lax.dynamic_update_slice(rows[k], flat[k], (first, 0, 0)) for k in rows}

  in_axes = (0, None, None, 0, None)
  return jax.pmap(fill, DEVICES, in_axes=in_axes, out_axes=0, donate_argnums=0)


def pad_images(images: np.ndarray, count: int) -> np.ndarray:
  """`images` with black ones behind, `count` in all."""
  padding = [(0, count - len(images))] + [(0, 0)] * (images.ndim - 1)
  return np.pad(images, padding)


def embed(
  architecture: Architecture,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  strides: Mapping[int, int],
  *,
  batch_size: int,
  progress: Progress = iter,
) -> dict[int, Embeddings]:
  """Embeds all patches of all images; what comes out stays on the devices.

  Args:
    architecture: the encoder's.
    params: the encoder's, replicated.
    mean: f32[H, W, 3] or f32[1, 1, 3], replicated.
    images: u8[N, H, W, 3], N >= 1.
    strides: for each receptive field that is wanted, its stride in pixels.
    batch_size: images embedded at a time on each device.
    progress: wraps the iterable of batches.

  Returns:
    The embeddings of each scale, images in order, dealt to the devices in runs.
  """
  mesh = local_mesh()
  batch = min(batch_size, -(-len(images) // mesh.size))
  batches = -(-len(images) // (mesh.size * batch))
  share = batches * batch
  dealt = pad_images(images, mesh.size * share).reshape(mesh.size, share, *images.shape[1:])
  sharding = NamedSharding(mesh, PartitionSpec(DEVICES))
  rows = {}
  for k, stride in strides.items():
    patches = int(np.prod(geometry.grid_shape(images.shape[1:3], k, stride)))
    shape = (mesh.size, share, patches, architecture.embed_dim)
    rows[k] = jnp.zeros(shape, jnp.float32, device=sharding)
  fill = make_fill(architecture, strides)
  for index in progress(range(batches)):
    first = index * batch
    rows = fill(rows, params, mean, dealt[:, first : first + batch], first)
    # Waiting keeps the progress bar honest and one batch of images on the device.
    jax.block_until_ready(rows)
  valid = (np.arange(mesh.size * share) < len(images)).reshape(mesh.size, share)
  return {k: Embeddings(value, jax.device_put(valid, sharding)) for k, value in rows.items()}
