"""The embedding pass: every patch of every image, on all local devices, by `jax.pmap`.

Images are dealt to the devices in runs, padded so that every device gets as many, and the
embeddings stay on the device that made them: a memory bank is born sharded. Of several processes
each embeds the images of its own devices. Large images go through the encoder in tiles (tiling.py).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding

from patch_svdd_jax.models import geometry, tiling
from patch_svdd_jax.models.architecture import Architecture
from patch_svdd_jax.models.convolution import valid_conv
from patch_svdd_jax.models.encoder import Convolve, Encoder, Params
from patch_svdd_jax.models.features import EMBEDDING, Features, describe, project
from patch_svdd_jax.models.mean_image import subtract_mean
from patch_svdd_jax.system.batching import Progress, pad_images
from patch_svdd_jax.system.sharding import DEVICES, SHARDED, all_devices, local_mesh

# (params, mean, images u8[devices, B, H, W, 3]) -> f32[devices, B, rows, columns, D] for each K
EmbedBatch = Callable[[Params, jax.typing.ArrayLike, jax.typing.ArrayLike], tiling.Grids]
# (rows of each K, params, mean, images, first) -> rows
Fill = Callable[
  [tiling.Grids, Params, jax.typing.ArrayLike, jax.typing.ArrayLike, jax.typing.ArrayLike],
  tiling.Grids,
]


class Embeddings(NamedTuple):
  """The embeddings of one scale.

  Attributes:
    rows: f32[devices, images, patches, D], sharded over the devices of all processes.
    images: how many images there are; those behind the first so many are padding.
  """

  rows: jax.Array
  images: int


def make_encode(
  architecture: Architecture,
  strides: Mapping[int, int],
  tile: int = 0,
  convolve: Convolve = valid_conv,
  features: Features = EMBEDDING,
) -> tiling.Encode:
  """Returns encode(params, mean, images u8[B, H, W, 3]) -> f32[B, rows, columns, D] for each K.

  Images of more than `tile` pixels along a side are encoded in tiles; 0 encodes them whole. D is
  that of the features that patches are described by.
  """
  encoder = Encoder(architecture, convolve=convolve)

  @jax.named_scope('embed')
  def encode(params: Params, mean: jax.Array, images: jax.Array) -> Any:
    pixels = subtract_mean(images, mean)
    grids: Any = encoder.apply({'params': params}, pixels, strides, features.names, method=describe)
    return project(grids, params) if features.projected else grids

  return tiling.in_tiles(encode, strides, tile)


def make_embed_batch(
  architecture: Architecture,
  strides: Mapping[int, int],
  tile: int = 0,
  features: Features = EMBEDDING,
) -> EmbedBatch:
  """Returns the pmapped embed(params, mean, images u8[devices, B, H, W, 3]) for queries.

  `params` and `mean` are replicated; the result is f32[devices, B, rows, columns, D] for each K.
  """
  return _embed_batch(architecture, tuple(strides.items()), tile, features)


@functools.lru_cache(maxsize=8)  # a new function of the same would be compiled anew
def _embed_batch(
  architecture: Architecture, strides: tuple[tuple[int, int], ...], tile: int, features: Features
) -> EmbedBatch:
  embed: EmbedBatch = jax.pmap(
    make_encode(architecture, dict(strides), tile, features=features),
    DEVICES,
    in_axes=(None, None, 0),
    out_axes=0,
    devices=jax.local_devices(),
  )
  return embed


def make_fill(
  architecture: Architecture,
  strides: Mapping[int, int],
  tile: int = 0,
  features: Features = EMBEDDING,
) -> Fill:
  """Returns the pmapped fill(rows, params, mean, images, first) -> rows.

  It writes the embeddings of a batch of images into the rows of each device, in place (they are
  donated), from image `first` on.
  """
  return _fill(architecture, tuple(strides.items()), tile, features)


@functools.lru_cache(maxsize=8)
def _fill(
  architecture: Architecture, strides: tuple[tuple[int, int], ...], tile: int, features: Features
) -> Fill:
  encode = make_encode(architecture, dict(strides), tile, features=features)

  def fill(
    rows: dict[int, jax.Array], params: Params, mean: jax.Array, images: jax.Array, first: jax.Array
  ) -> dict[int, jax.Array]:
    grids = encode(params, mean, images)
    flat = {k: grid.reshape(grid.shape[0], -1, grid.shape[-1]) for k, grid in grids.items()}
    return {k: lax.dynamic_update_slice(rows[k], flat[k], (first, 0, 0)) for k in rows}

  in_axes = (0, None, None, 0, None)
  mapped: Fill = jax.pmap(
    fill, DEVICES, in_axes=in_axes, out_axes=0, donate_argnums=0, devices=jax.local_devices()
  )
  return mapped


def embed(
  architecture: Architecture,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  strides: Mapping[int, int],
  *,
  batch_size: int,
  tile: int = 0,
  features: Features = EMBEDDING,
  progress: Progress = iter,
) -> dict[int, Embeddings]:
  """Embeds all patches of all images; what comes out stays on the devices.

  Args:
    architecture: the encoder's.
    params: the encoder's, replicated.
    mean: f32[H, W, 3] or f32[1, 1, 3], replicated.
    images: u8[N, H, W, 3], N >= 1; the same in every process.
    strides: for each receptive field that is wanted, its stride in pixels.
    batch_size: images embedded at a time on each device.
    tile: the most pixels along a side that are encoded at a time, 0 for all.
    features: that patches are described by.
    progress: wraps the iterable of batches.

  Returns:
    The embeddings of each scale, images in order, dealt to the devices in runs.
  """
  mesh, own = all_devices(), local_mesh()
  batch = min(batch_size, -(-len(images) // mesh.size))
  batches = -(-len(images) // (mesh.size * batch))
  share = batches * batch
  dealt = pad_images(images, mesh.size * share).reshape(mesh.size, share, *images.shape[1:])
  dealt = dealt[[device in own.devices for device in mesh.devices]]
  rows = {}
  for k, stride in strides.items():
    patches = geometry.patch_count(images.shape[1:3], k, stride)
    shape = (own.size, share, patches, features.dim(architecture))
    rows[k] = jnp.zeros(shape, jnp.float32, device=NamedSharding(own, SHARDED))
  fill = make_fill(architecture, strides, tile, features)
  for index in progress(range(batches)):
    first = index * batch
    rows = fill(rows, params, mean, dealt[:, first : first + batch], first)
    # Waiting keeps the progress bar honest and one batch of images on the device.
    jax.block_until_ready(rows)
  return {k: Embeddings(_of_all_processes(value, mesh), len(images)) for k, value in rows.items()}


def _of_all_processes(rows: jax.Array, mesh: Mesh) -> jax.Array:
  """Returns one array over all devices, from what each process has on its own [devices, ...]."""
  return jax.make_array_from_single_device_arrays(
    (mesh.size, *rows.shape[1:]),
    NamedSharding(mesh, SHARDED),
    [shard.data for shard in rows.addressable_shards],
  )


def embed_to_host(
  architecture: Architecture,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  strides: Mapping[int, int],
  *,
  batch_size: int,
  tile: int = 0,
  features: Features = EMBEDDING,
  progress: Progress = iter,
  counted: Mapping[int, np.ndarray] | None = None,
) -> dict[int, np.ndarray]:
  """Returns the same for embeddings that do not fit on the devices: rows f32[N, D] of each scale.

  With `counted`, bool[images, rows, columns] of each scale, only these patches are there.
  """
  dim = features.dim(architecture)
  rows = {}
  for k, stride in strides.items():
    patches = geometry.patch_count(images.shape[1:3], k, stride)
    count = np.count_nonzero(counted[k]) if counted else len(images) * patches
    rows[k] = np.empty((count, dim), np.float32)
  filled = dict.fromkeys(rows, 0)
  first = 0
  for part in embed_by_batches(
    architecture,
    params,
    mean,
    images,
    strides,
    batch_size=batch_size,
    tile=tile,
    features=features,
    progress=progress,
  ):
    for k, embedded in part.items():
      taken = embedded.reshape(-1, dim)
      if counted:
        taken = taken[counted[k][first : first + len(embedded)].ravel()]
      rows[k][filled[k] : filled[k] + len(taken)] = taken
      filled[k] += len(taken)
    first += len(embedded)
  return rows


def embed_by_batches(
  architecture: Architecture,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  strides: Mapping[int, int],
  *,
  batch_size: int,
  tile: int = 0,
  features: Features = EMBEDDING,
  progress: Progress = iter,
) -> Iterator[dict[int, np.ndarray]]:
  """Yields f32[images, patches, D] of each scale, of one batch of images after another."""
  own = local_mesh().size
  batch = own * min(batch_size, -(-len(images) // own))
  embed_batch = make_embed_batch(architecture, strides, tile, features)
  for first in progress(range(0, len(images), batch)):
    part = images[first : first + batch]
    padded = pad_images(part, batch).reshape(own, -1, *images.shape[1:])
    grids = embed_batch(params, mean, padded)
    yield {
      k: np.asarray(grid).reshape(batch, -1, grid.shape[-1])[: len(part)]
      for k, grid in grids.items()
    }
