"""The jitted train step: several steps in one scan, the batch divided over a mesh of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import lax
from jax.sharding import Mesh

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system.sharding import DEVICES, REPLICATED
from patch_svdd_jax.training import losses, objective, optimizer, windows
from patch_svdd_jax.training.objective import Metrics
from patch_svdd_jax.training.train_state import Hyperparams, TrainState


def check(config: ml_collections.ConfigDict, devices: int) -> None:
  """Refuses a batch that cannot be divided into as many equal parts.

  Raises:
    UserError: names the keys.
  """
  name = 'crops' if config.train.pairs == 'crops' else 'batch_size'
  parts = config.train.accumulate * devices
  if objective.examples(config) % parts:
    raise UserError(
      f'config.train.{name}={objective.examples(config)} cannot be divided among {devices} devices '
      f'x config.train.accumulate={config.train.accumulate}: give a multiple of {parts}'
    )


def zeros_like_result(function: Callable[..., Any], *arguments: Any) -> Any:
  """Zeros of the shapes and types that the function returns."""
  shapes = jax.eval_shape(function, *arguments)
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def make_train_step(
  config: ml_collections.ConfigDict, image_count: int, mesh: Mesh, population: bool = False
) -> jax.stages.Wrapped:
  """Returns the jitted train(state, images, mean, hyperparams) -> (state, metrics).

  Each call takes `config.train.steps_per_call` steps. Each device draws its share of a step's
  pairs, every one from a key of its own, and the gradients' mean is all that devices exchange; so
  the pairs do not depend on the devices, and the losses do up to the order of a sum.

  The state is donated. Steps past `config.train.steps` do nothing, so that one program serves the
  last call too. A step whose loss or gradient is not finite does nothing either: the state stays
  what was last finite, and the metric 'finite_steps' falls short of 'steps'.

  Args:
    config: the whole config; of `config.train`, what `Hyperparams` has is ignored.
    image_count: of the training images, without padding.
    mesh: the devices, in a row.
    population: whether states and hyperparams have a leading axis of members, trained at once.

  Returns:
    A function of the state, images u8[N, H, W, 3], the mean f32[H, W, 3] or f32[1, 1, 3] and the
    hyperparams; all replicated on the mesh, but the images as `config.train.images` says. Metrics
    are means over the finite steps of the call.

  Raises:
    UserError: the batch cannot be divided among the devices.
  """
  check(config, mesh.size)
  images_spec, crop = windows.PLACEMENTS[config.train.images]
  loss = objective.make_loss(config, image_count, crop)
  optimise = optimizer.from_config(config.train)
  parts = config.train.accumulate
  share = objective.examples(config) // (parts * mesh.size)

  def part_gradient(
    params: Params, keys: jax.Array, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[Params, Metrics]:
    """Of one of the parts into which the batch is divided, the mean over devices."""
    keys = lax.dynamic_slice_in_dim(keys, lax.axis_index(DEVICES) * share, share)
    gradient, (metrics, anchors) = jax.grad(loss, has_aux=True)(
      params, keys, images, mean, hyperparams
    )
    gradient, metrics = lax.pmean((gradient, metrics), DEVICES)
    for name, z in anchors.items():
      covariance = losses.covariance(z, DEVICES)
      metrics[f'embedding_spread/{name}'] = losses.embedding_std(covariance)
      metrics[f'effective_rank/{name}'] = losses.effective_rank(covariance)
    return gradient, metrics

  def batch_gradient(params: Params, key: jax.Array, *others: Any) -> tuple[Params, Metrics]:
    keys = jax.random.split(key, objective.examples(config))
    if parts == 1:
      return part_gradient(params, keys, *others)

    def add(total: Any, part: jax.Array) -> tuple[Any, None]:
      return jax.tree.map(jnp.add, total, part_gradient(params, part, *others)), None

    by_part = keys.reshape(parts, -1)
    total, _ = lax.scan(add, zeros_like_result(part_gradient, params, by_part[0], *others), by_part)
    return jax.tree.map(lambda value: value / parts, total)

  def step(
    state: TrainState, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(hyperparams.key, state.step)
    gradient, metrics = batch_gradient(state.params, key, images, mean, hyperparams)
    updates, opt_state = optimise.update(gradient, state.opt_state, state.params)
    # The optimiser's schedule has its peak at 1: all of them are linear in the learning rate.
    updates = jax.tree.map(lambda update: hyperparams.learning_rate * update, updates)
    moved = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(optax.tree.norm(gradient))
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    metrics = {name: jnp.where(finite, value, 0.0) for name, value in metrics.items()}
    return state, metrics | {'steps': jnp.float32(1), 'finite_steps': finite.astype(jnp.float32)}

  def train(
    state: TrainState, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[TrainState, Metrics]:
    def rest(state: TrainState) -> tuple[TrainState, Metrics]:
      return state, zeros_like_result(step, state, images, mean, hyperparams)[1]

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
      return lax.cond(
        state.step < config.train.steps, lambda s: step(s, images, mean, hyperparams), rest, state
      )

    state, metrics = lax.scan(body, state, length=config.train.steps_per_call)
    sums = {name: values.sum() for name, values in metrics.items()}
    counts = {name: sums.pop(name) for name in ('steps', 'finite_steps')}
    means = {name: value / jnp.maximum(counts['finite_steps'], 1) for name, value in sums.items()}
    return state, means | counts

  whole = jax.vmap(train, (0, None, None, 0)) if population else train
  sharded = jax.shard_map(
    whole,
    mesh=mesh,
    in_specs=(REPLICATED, images_spec, REPLICATED, REPLICATED),
    out_specs=REPLICATED,
    # What comes out is reduced, by hand; the check knows no custom gradients.
    check_vma=False,
  )
  return jax.jit(sharded, donate_argnums=0)
