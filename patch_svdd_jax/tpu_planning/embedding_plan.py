"""What the embedding pass takes on TPUs that are not here."""

import jax
import jax.numpy as jnp
import ml_collections

from patch_svdd_jax.models import architecture, embedding, encoder, flops, tiling
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.system.sharding import REPLICATED, SHARDED
from patch_svdd_jax.tpu_planning import aot
from patch_svdd_jax.tpu_planning.aot import Program


def compile_for(topology: str, config: ml_collections.ConfigDict, images: int) -> Program:
  """Compiles the embedding of a batch of images for a TPU.

  `jax.pmap` cannot be lowered for chips that are only described: its body is mapped over them by
  `jax.shard_map` instead.

  Args:
    topology: as 'v5e:2x2'.
    config: the whole config.
    images: on each chip at a time.

  Raises:
    UserError: libtpu is not installed, or there is no such topology.
  """
  mesh = aot.mesh_of(topology)
  arch, strides = architecture.from_config(config.encoder), strides_of(config)
  size, tile = tuple(config.data.image_size), config.score.tile
  mean = size if config.train.mean == 'image' else (1, 1)
  embed = jax.shard_map(
    embedding.make_encode(arch, strides, tile),
    mesh=mesh,
    in_specs=(REPLICATED, REPLICATED, SHARDED),
    out_specs=SHARDED,
    check_vma=False,
  )
  count = images * mesh.size
  lowered = jax.jit(embed).lower(
    aot.described(jax.eval_shape(lambda: encoder.init_encoder(config)), mesh),
    aot.described(jax.ShapeDtypeStruct((*mean, 3), jnp.float32), mesh),
    aot.described(jax.ShapeDtypeStruct((count, *size, 3), jnp.uint8), mesh, SHARDED),
  )
  return aot.compile_program(
    topology,
    mesh.size,
    lowered,
    flops=count * flops.image_flops(config),
    compute='float32',
    parts=1 if tiling.is_whole(size, tile) else images * tiling.count(size, tile, strides),
  )
