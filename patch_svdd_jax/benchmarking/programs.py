"""Our programs as benchmarks time them: the train step, and the embedding of images."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from patch_svdd_jax.models import architecture, embedding, encoder, flops, mean_image
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.search import block_sizes
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.compiled_memory import is_out_of_memory, memory_of
from patch_svdd_jax.training import loop, train_state, train_step
from patch_svdd_jax.training.train_state import Hyperparams, TrainState

# Training images, of random pixels: what is in them does not change the time.
IMAGES = 64


class OutOfMemoryError(Exception):
  """A program needs more memory than there is, which its text says if it is known."""


class Program(NamedTuple):
  """Holds a program that takes turns with others.

  Attributes:
    call: does the work and waits for it.
    steps: train steps, or images, in a call.
    pairs: that a step learns from; 0 for an embedding.
    flops: of a step or an image, by the encoder's shape.
    compiler_flops: the same as the compiler counts them; None if nobody counted.
    memory: bytes that the program holds on each device, its arguments included; None if unknown.
    dispatched: the seconds after which each call returned, its work not yet done; may stay empty.
  """

  call: Callable[[], object]
  steps: int
  pairs: int
  flops: float
  compiler_flops: float | None
  memory: int | None
  dispatched: list[float]


class LoweredStep(NamedTuple):
  """A train step that is not compiled yet, its first state, and its other arguments, on a mesh."""

  lowered: jax.stages.Lowered
  state: TrainState
  inputs: tuple[jax.Array, jax.Array, Hyperparams]


def lower_step(config: ml_collections.ConfigDict, mesh: Mesh) -> LoweredStep:
  """Lowers our train step for a mesh, with what surrounds it in a run: pairs are drawn, too.

  Raises:
    UserError: the batch cannot be divided.
  """
  # Steps past the last one do nothing.
  config = config.copy_and_resolve_references()
  config.train.steps = np.iinfo(np.int32).max
  step = train_step.make_train_step(config, IMAGES, mesh)
  size = tuple(config.data.image_size)
  images = np.random.default_rng(0).integers(256, size=(IMAGES, *size, 3), dtype=np.uint8)
  mean = mean_image.training_mean(images, config.train.mean)
  inputs = loop.place_inputs(config, images, mean, mesh)
  state = sharding.place(train_state.init_state(config), mesh)
  return LoweredStep(step.lower(state, *inputs), state, inputs)


def prepare_step(config: ml_collections.ConfigDict, mesh: Mesh) -> Program:
  """Compiles our train step for a mesh.

  Raises:
    OutOfMemoryError: it would need more memory than there is.
    UserError: the batch cannot be divided.
  """
  lowered, state, inputs = lower_step(config, mesh)
  compiled = compile_fitting(lowered, mesh)
  dispatched: list[float] = []

  def call() -> None:
    nonlocal state
    start = time.perf_counter()
    with jax.transfer_guard('disallow'):
      state, metrics = compiled(state, *inputs)
    dispatched.append(time.perf_counter() - start)
    jax.block_until_ready((state, metrics))

  return Program(
    call=call,
    steps=config.train.steps_per_call,
    pairs=loop.pairs_per_step(config),
    flops=flops.step_flops(config),
    # It counts a loop's body once: what is one part of one step's batch.
    compiler_flops=flops_of(compiled) * mesh.size * config.train.accumulate,
    memory=sum(memory_of(compiled)),
    dispatched=dispatched,
  )


def prepare_embedding(config: ml_collections.ConfigDict) -> Program:
  """Compiles our embedding pass on an image for each local device, on which everything stays.

  Raises:
    OutOfMemoryError: it would need more memory than there is.
  """
  local = sharding.local_mesh()
  size = tuple(config.data.image_size)
  images = np.random.default_rng(0).integers(256, size=(local.size, 1, *size, 3), dtype=np.uint8)
  mean = mean_image.training_mean(images[:, 0], config.train.mean)
  arguments = sharding.replicate((encoder.init_encoder(config), jnp.asarray(mean)))
  on_devices = sharding.place(images, local, sharding.SHARDED)
  # What pmap returns can be lowered; its annotation does not say so.
  embed: Any = embedding.make_embed_batch(
    architecture.from_config(config.encoder), strides_of(config)
  )
  compiled = compile_fitting(embed.lower(*arguments, on_devices), local)
  dispatched: list[float] = []

  def call() -> None:
    start = time.perf_counter()
    found = embed(*arguments, on_devices)
    dispatched.append(time.perf_counter() - start)
    jax.block_until_ready(found)

  return Program(
    call=call,
    steps=local.size,
    pairs=0,
    flops=flops.embedding_flops(config),
    compiler_flops=flops_of(compiled),
    memory=sum(memory_of(compiled)),
    dispatched=dispatched,
  )


def compile_fitting(lowered: jax.stages.Lowered, mesh: Mesh) -> jax.stages.Compiled:
  """Compiles a program for a mesh.

  Raises:
    OutOfMemoryError: it needs more memory than is free; said before it takes it, since a system
      that runs out of memory kills the process.
  """
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    raise as_out_of_memory(error) from error
  _, temporaries, output = memory_of(compiled)
  free = free_memory(mesh)
  if (wanted := temporaries + output) > free:
    raise OutOfMemoryError(f'{wanted / 1e9:,.3g} GB a device, where {free / 1e9:,.3g} are free')
  return compiled


def free_memory(mesh: Mesh) -> int:
  """Returns the free bytes of each device of a mesh; those of a CPU share the system's."""
  device = mesh.local_devices[0]
  free = block_sizes.free_memory(device)
  # CPU devices that are not in the mesh need nothing.
  return free * jax.local_device_count() // mesh.size if device.platform == 'cpu' else free


def as_out_of_memory(error: jax.errors.JaxRuntimeError) -> Exception:
  """Returns what to raise: OutOfMemoryError if it was that, the error itself if not."""
  return OutOfMemoryError() if is_out_of_memory(error) else error


def warm_up(program: Program) -> None:
  """Makes the first call, which is in no figure.

  Raises:
    OutOfMemoryError: it took more memory than there is.
  """
  try:
    program.call()
  except jax.errors.JaxRuntimeError as error:
    raise as_out_of_memory(error) from error
  program.dispatched.clear()


def flops_of(compiled: jax.stages.Compiled) -> float:
  """Returns them as the compiler counts them, on one device, the body of a loop once."""
  return float((compiled.cost_analysis() or {}).get('flops', 0.0))
