"""The optimiser that `config.train` asks for."""

import ml_collections
import optax

from patch_svdd_jax.errors import UserError


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
  """Linear warm-up to `config.learning_rate`, then constant or a cosine decay to 0 at the end."""
  if not 0 <= config.warmup_steps <= config.steps:
    raise UserError(
      f'config.train.warmup_steps={config.warmup_steps} must lie between 0 and '
      f'config.train.steps={config.steps}'
    )
  if config.decay == 'none':
    main = optax.constant_schedule(config.learning_rate)
  elif config.decay == 'cosine':
    main = optax.cosine_decay_schedule(
      config.learning_rate, max(1, config.steps - config.warmup_steps)
    )
  else:
    raise UserError(f"config.train.decay={config.decay!r}: give 'none' or 'cosine'")
  if not config.warmup_steps:
    return main
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.join_schedules([warmup, main], [config.warmup_steps])


def from_config(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam, after clipping by the global norm where `config.clip_norm` is not 0."""
  adam = optax.adam(learning_rate(config))
  if not config.clip_norm:
    return adam
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)
