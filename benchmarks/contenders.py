"""Who takes turns in the benchmark of training: our programs, and PyTorch's."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import torch_encoder
from patch_svdd_jax import config_rules
from patch_svdd_jax.models import architecture, embedding, encoder, flops, mean_image
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import POSITIONS
from patch_svdd_jax.search import block_sizes
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.compiled_memory import is_out_of_memory, memory_of
from patch_svdd_jax.training import batches, loop, train_state, train_step

# Training images, of random pixels: what is in them does not change the time.
IMAGES = 64
OURS, TORCH = 'patch_svdd_jax', 'torch'


class OutOfMemoryError(Exception):
  """A program needs more memory than there is."""


class Contender(NamedTuple):
  """What takes its turns.

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


# The config, of the batch to measure, to a contender; raises OutOfMemoryError.
Prepare = Callable[[ml_collections.ConfigDict], Contender]
Contenders = Mapping[str, Callable[[], Contender]]


def prepare_step(config: ml_collections.ConfigDict) -> Contender:
  """Our train step on all devices, with what surrounds it in a run: pairs are drawn, too.

  Raises:
    OutOfMemoryError: it would need more memory than there is.
    UserError: the batch cannot be divided.
  """
  # Steps past the last one do nothing.
  config = config.copy_and_resolve_references()
  config.train.steps = np.iinfo(np.int32).max
  mesh = sharding.all_devices()
  size = tuple(config.data.image_size)
  images = np.random.default_rng(0).integers(256, size=(IMAGES, *size, 3), dtype=np.uint8)
  mean = mean_image.training_mean(images, config.train.mean)
  inputs = loop.place_inputs(config, images, mean, mesh)
  state = sharding.place(train_state.init_state(config), mesh)
  step = train_step.make_train_step(config, IMAGES, mesh)
  compiled = compile_fitting(step.lower(state, *inputs))
  dispatched: list[float] = []

  def call() -> None:
    nonlocal state
    start = time.perf_counter()
    with jax.transfer_guard('disallow'):
      state, metrics = compiled(state, *inputs)
    dispatched.append(time.perf_counter() - start)
    jax.block_until_ready((state, metrics))

  return Contender(
    call=call,
    steps=config.train.steps_per_call,
    pairs=loop.pairs_per_step(config),
    flops=flops.step_flops(config),
    # It counts a loop's body once: what is one part of one step's batch.
    compiler_flops=flops_of(compiled) * mesh.size * config.train.accumulate,
    memory=sum(memory_of(compiled)),
    dispatched=dispatched,
  )


def prepare_embedding(config: ml_collections.ConfigDict) -> Contender:
  """Our embedding pass on an image for each local device, pixels and embeddings on the device.

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
  compiled = compile_fitting(embed.lower(*arguments, on_devices))
  dispatched: list[float] = []

  def call() -> None:
    start = time.perf_counter()
    found = embed(*arguments, on_devices)
    dispatched.append(time.perf_counter() - start)
    jax.block_until_ready(found)

  return Contender(
    call=call,
    steps=local.size,
    pairs=0,
    flops=flops.embedding_flops(config),
    compiler_flops=flops_of(compiled),
    memory=sum(memory_of(compiled)),
    dispatched=dispatched,
  )


def prepare_torch_step(config: ml_collections.ConfigDict) -> Contender:
  """PyTorch's step on patches of random pixels, which are at hand: it draws no pairs."""
  step = torch_encoder.make_step(
    architecture.from_config(config.encoder),
    svdd_weight=config.train.svdd_weight,
    learning_rate=config.train.learning_rate,
  )
  rng, pairs = np.random.default_rng(0), config.train.batch_size
  batch = {
    k: (rng.random((4 * pairs, k, k, 3), np.float32), rng.integers(POSITIONS, size=pairs))
    for k in config.encoder.scales
  }
  return Contender(
    call=lambda: step(batch),
    steps=1,
    pairs=loop.pairs_per_step(config),
    flops=flops.step_flops(config),
    compiler_flops=None,
    memory=None,
    dispatched=[],
  )


def prepare_torch_embedding(config: ml_collections.ConfigDict) -> Contender:
  """PyTorch's embedding of an image whose pixels are normalised already."""
  embed = torch_encoder.make_embed(architecture.from_config(config.encoder), strides_of(config))
  image = np.random.default_rng(0).random((1, *config.data.image_size, 3), np.float32)
  return Contender(
    call=lambda: embed(image),
    steps=1,
    pairs=0,
    flops=flops.embedding_flops(config),
    compiler_flops=None,
    memory=None,
    dispatched=[],
  )


def compile_fitting(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
  """The compiled program.

  Raises:
    OutOfMemoryError: it needs more memory than is free; said before it takes it, since a system
      that runs out of memory kills the process.
  """
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    raise as_out_of_memory(error) from error
  analysis: Any = compiled.memory_analysis()
  wanted = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
  if wanted > block_sizes.free_memory(jax.local_devices()[0]):
    raise OutOfMemoryError
  return compiled


def as_out_of_memory(error: jax.errors.JaxRuntimeError) -> Exception:
  """What to raise: OutOfMemoryError if it was that, the error itself if not."""
  return OutOfMemoryError() if is_out_of_memory(error) else error


def flops_of(compiled: jax.stages.Compiled) -> float:
  """As the compiler counts them, on one device, the body of a loop once."""
  return float((compiled.cost_analysis() or {}).get('flops', 0.0))


def prepare_all(contenders: Contenders) -> dict[str, Contender | None]:
  """The contenders, each after its first call; None for those that memory does not suffice for."""
  ready: dict[str, Contender | None] = {}
  for name, prepare in contenders.items():
    try:
      contender = prepare()
      try:
        contender.call()
      except jax.errors.JaxRuntimeError as error:
        raise as_out_of_memory(error) from error
      contender.dispatched.clear()
      ready[name] = contender
    except OutOfMemoryError:
      ready[name] = None
  return ready


def step_contenders(
  config: ml_collections.ConfigDict,
  batch: int,
  kinds: Sequence[str],
  with_torch: bool,
) -> Contenders:
  """Our train step with each kind of pairs, and PyTorch's, which learns from single patches.

  Raises:
    UserError: the batch does not suit the config.
  """

  def prepare(prepare_one: Prepare, kind: str) -> Callable[[], Contender]:
    chosen = config.copy_and_resolve_references()
    chosen.train.pairs = kind
    chosen = batches.resize(chosen, batch)
    config_rules.validate(chosen)
    return lambda: prepare_one(chosen)

  found = {kind: prepare(prepare_step, kind) for kind in kinds}
  if with_torch:
    found[TORCH] = prepare(prepare_torch_step, 'patches')
  return found


def embedding_contenders(config: ml_collections.ConfigDict, with_torch: bool) -> Contenders:
  """Our embedding of an image of the config's size, and PyTorch's."""
  found = {OURS: lambda: prepare_embedding(config)}
  if with_torch:
    found[TORCH] = lambda: prepare_torch_embedding(config)
  return found
