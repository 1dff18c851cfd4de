"""The optimiser that `config.train` asks for."""

import math

import ml_collections
import optax

# All of them are linear in the learning rate. LAMB: You et al. 2020, arXiv 1904.00962; LARS: You et
# al. 2017, arXiv 1708.03888.
OPTIMIZERS = {'adam': optax.adam, 'lamb': optax.lamb, 'lars': optax.lars}

# By how much the learning rate grows with the batch, from the authors' batch on: 'linear' for LARS
# and SGD (Goyal et al. 2017, arXiv 1706.02677), 'sqrt' for Adam and LAMB (You et al. 2020).
BASE_BATCH = 64
SCALINGS = {'none': lambda ratio: 1.0, 'sqrt': math.sqrt, 'linear': lambda ratio: ratio}


def schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """Returns a linear warm-up to 1, then a constant or a cosine decay to 0 at the end."""
  if config.decay == 'cosine':
    end = max(config.steps, config.warmup_steps + 1)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, config.warmup_steps, end)
  if not config.warmup_steps:
    return optax.constant_schedule(1.0)
  return optax.warmup_constant_schedule(0.0, 1.0, config.warmup_steps)


def peak_learning_rate(config: ml_collections.ConfigDict) -> float:
  """Returns `config.learning_rate`, scaled to the batch by `config.learning_rate_scaling`."""
  scale = SCALINGS[config.learning_rate_scaling](config.batch_size / BASE_BATCH)
  return float(config.learning_rate * scale)


def from_config(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Returns the optimiser for a learning rate of 1 at its peak; updates are multiplied later.

  The gradient is clipped by its global norm first where `config.clip_norm` is not 0.
  """
  optimise = OPTIMIZERS[config.optimizer](schedule(config))
  if not config.clip_norm:
    return optimise
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimise)
