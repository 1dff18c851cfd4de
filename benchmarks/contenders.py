"""Who takes turns in the benchmark of training: our programs, and PyTorch's."""

from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from benchmarks import torch_encoder
from patch_svdd_jax import config_rules
from patch_svdd_jax.benchmarking import programs
from patch_svdd_jax.benchmarking.programs import OutOfMemoryError, Program
from patch_svdd_jax.models import architecture, flops
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import POSITIONS
from patch_svdd_jax.system import sharding
from patch_svdd_jax.training import batches, loop

OURS, TORCH = 'patch_svdd_jax', 'torch'

# The config, of the batch to measure, to a contender; raises OutOfMemoryError.
Prepare = Callable[[ml_collections.ConfigDict], Program]
Contenders = Mapping[str, Callable[[], Program]]


def prepare_step(config: ml_collections.ConfigDict) -> Program:
  """Returns our train step on all devices, as `programs.prepare_step` does."""
  return programs.prepare_step(config, sharding.all_devices())


def prepare_torch_step(config: ml_collections.ConfigDict) -> Program:
  """Returns PyTorch's step on patches of random pixels, which are at hand: it draws no pairs."""
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
  return Program(
    call=lambda: step(batch),
    steps=1,
    pairs=loop.pairs_per_step(config),
    flops=flops.step_flops(config),
    compiler_flops=None,
    memory=None,
    dispatched=[],
  )


def prepare_torch_embedding(config: ml_collections.ConfigDict) -> Program:
  """Returns PyTorch's embedding of an image whose pixels are normalised already."""
  embed = torch_encoder.make_embed(architecture.from_config(config.encoder), strides_of(config))
  image = np.random.default_rng(0).random((1, *config.data.image_size, 3), np.float32)
  return Program(
    call=lambda: embed(image),
    steps=1,
    pairs=0,
    flops=flops.embedding_flops(config),
    compiler_flops=None,
    memory=None,
    dispatched=[],
  )


def prepare_all(contenders: Contenders) -> dict[str, Program | None]:
  """Returns the contenders, each after its first call; None where memory does not suffice."""
  ready: dict[str, Program | None] = {}
  for name, prepare in contenders.items():
    try:
      program = prepare()
      programs.warm_up(program)
      ready[name] = program
    except OutOfMemoryError:
      ready[name] = None
  return ready


def step_contenders(
  config: ml_collections.ConfigDict,
  batch: int,
  kinds: Sequence[str],
  with_torch: bool,
) -> Contenders:
  """Returns our train step by each kind of pairs, and PyTorch's, by single patches.

  Raises:
    UserError: the batch does not suit the config.
  """

  def prepare(prepare_one: Prepare, kind: str) -> Callable[[], Program]:
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
  """Returns our embedding of an image of the config's size, and PyTorch's."""
  found = {OURS: lambda: programs.prepare_embedding(config)}
  if with_torch:
    found[TORCH] = lambda: prepare_torch_embedding(config)
  return found
