"""What training takes on TPUs that are not here."""

import jax
import jax.numpy as jnp
import ml_collections

from patch_svdd_jax.models import flops
from patch_svdd_jax.tpu_planning import aot
from patch_svdd_jax.tpu_planning.aot import Program
from patch_svdd_jax.training import batches, deep_svdd_centre, train_state, train_step, windows


def compile_for(
  topology: str, config: ml_collections.ConfigDict, pairs: int, images: int
) -> Program:
  """Compiles the train step for a TPU.

  The compiler counts a loop's body once: its time is that of one step.

  Args:
    topology: as 'v5e:2x2'.
    config: the whole config; its batch is resized.
    pairs: `config.train.batch_size` on each chip.
    images: how many there are to train on.

  Raises:
    UserError: libtpu is not installed, there is no such topology, or the batch cannot be divided.
  """
  mesh = aot.mesh_of(topology)
  config = batches.resize(config, pairs * mesh.size)
  spec, _ = windows.PLACEMENTS[config.train.images]
  padded = windows.padded_count(images, spec, mesh)
  size = tuple(config.data.image_size)
  mean = size if config.train.mean == 'image' else (1, 1)
  lowered = train_step.make_train_step(config, images, mesh).lower(
    aot.described(jax.eval_shape(lambda: train_state.init_state(config)), mesh),
    aot.described(jax.ShapeDtypeStruct((padded, *size, 3), jnp.uint8), mesh, spec),
    aot.described(jax.ShapeDtypeStruct((*mean, 3), jnp.float32), mesh),
    aot.described(
      jax.eval_shape(lambda: train_state.hyperparams(config, deep_svdd_centre.zeros(config))), mesh
    ),
  )
  return aot.compile_program(
    topology,
    mesh.size,
    lowered,
    flops=flops.step_flops(config),
    compute=config.train.compute,
    parts=config.train.accumulate,
  )
