"""The jitted train step: several steps in one scan, the batch divided over a mesh of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import lax
from jax.sharding import Mesh

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.sharding import REPLICATED, axis_of
from patch_svdd_jax.training import losses, objective, optimizer, windows
from patch_svdd_jax.training.objective import Metrics
from patch_svdd_jax.training.train_state import Hyperparams, TrainState

# (params, key, images, mean, hyperparams) -> the gradient and the metrics of a step.
Gradient = Callable[[Params, jax.Array, jax.Array, jax.Array, Hyperparams], tuple[Params, Metrics]]

# (state, images, mean, hyperparams) -> the state after a step, or after several, and the metrics.
Step = Callable[[TrainState, jax.Array, jax.Array, Hyperparams], tuple[TrainState, Metrics]]


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
    mesh: the devices, as `sharding.by_slice` lays them out.
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
  loss = objective.make_loss(config, image_count, crop, axis_of(mesh))
  gradient = make_gradient(config, loss, mesh)
  train = make_call(config, make_step(config, gradient))
  # Where pairs are drawn, members have in common.
  members = Hyperparams._make([0, 0, 0, 0, None])
  whole = jax.vmap(train, (0, None, None, members)) if population else train
  sharded = jax.shard_map(
    whole,
    mesh=mesh,
    in_specs=(REPLICATED, images_spec, REPLICATED, REPLICATED),
    out_specs=REPLICATED,
    # What comes out is reduced, by hand; the check knows no custom gradients.
    check_vma=False,
  )
  return jax.jit(sharded, donate_argnums=0)


def make_gradient(config: ml_collections.ConfigDict, loss: objective.Loss, mesh: Mesh) -> Gradient:
  """Returns gradient(params, key, images, mean, hyperparams), the mean over all devices.

  The batch is divided into `config.train.accumulate` parts, one after another.
  """
  examples, parts = objective.examples(config), config.train.accumulate
  share, axis = examples // (parts * mesh.size), axis_of(mesh)

  def of_part(
    params: Params, keys: jax.Array, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[Params, Metrics]:
    keys = lax.dynamic_slice_in_dim(keys, lax.axis_index(axis) * share, share)
    gradient, (metrics, anchors) = jax.grad(loss, has_aux=True)(
      params, keys, images, mean, hyperparams
    )
    gradient, metrics = sharding.mean((gradient, metrics), mesh)
    with jax.named_scope('losses'):
      for name, z in anchors.items():
        covariance = losses.covariance(z, axis)
        metrics[f'embedding_spread/{name}'] = losses.embedding_std(covariance)
        metrics[f'effective_rank/{name}'] = losses.effective_rank(covariance)
    return gradient, metrics

  accumulated = optax.microbatch(
    of_part,
    argnums=1,
    microbatch_size=None if parts == 1 else examples // parts,
    accumulator=optax.microbatching.AccumulationType.MEAN,
  )

  def of_batch(
    params: Params, key: jax.Array, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[Params, Metrics]:
    # Part by part, as optax takes every n-th of them into a part.
    with jax.named_scope('sampling'):
      keys = jax.random.split(key, examples).reshape(parts, -1).T.reshape(-1)
    found: tuple[Params, Metrics] = accumulated(params, keys, images, mean, hyperparams)
    return found

  return of_batch


def make_step(config: ml_collections.ConfigDict, gradient_of: Gradient) -> Step:
  """Returns step(state, images, mean, hyperparams) -> (state, metrics), of one step.

  Where the loss or the gradient is not finite, the state stays and the metrics are zeros.
  """
  optimise = optimizer.from_config(config.train)

  def step(
    state: TrainState, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[TrainState, Metrics]:
    with jax.named_scope('sampling'):
      key = jax.random.fold_in(hyperparams.key, state.step)
    gradient, metrics = gradient_of(state.params, key, images, mean, hyperparams)
    with jax.named_scope('optimiser'):
      updates, opt_state = optimise.update(gradient, state.opt_state, state.params)
      # The optimiser's schedule has its peak at 1: all of them are linear in the learning rate.
      updates = jax.tree.map(lambda update: hyperparams.learning_rate * update, updates)
      moved = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
      finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(optax.tree.norm(gradient))
      state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    metrics = {name: jnp.where(finite, value, 0.0) for name, value in metrics.items()}
    return state, metrics | {'steps': jnp.float32(1), 'finite_steps': finite.astype(jnp.float32)}

  return step


def make_call(config: ml_collections.ConfigDict, step: Step) -> Step:
  """Returns train(state, images, mean, hyperparams) -> (state, metrics), of the steps of a call.

  Steps past `config.train.steps` do nothing; metrics are means over the finite ones.
  """

  def train(
    state: TrainState, images: jax.Array, mean: jax.Array, hyperparams: Hyperparams
  ) -> tuple[TrainState, Metrics]:
    def rest(state: TrainState) -> tuple[TrainState, Metrics]:
      _, metrics = jax.eval_shape(step, state, images, mean, hyperparams)
      return state, optax.tree.zeros_like(metrics)

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
      moved: tuple[TrainState, Metrics] = lax.cond(
        state.step < config.train.steps, lambda s: step(s, images, mean, hyperparams), rest, state
      )
      return moved

    state, metrics = lax.scan(body, state, length=config.train.steps_per_call)
    sums = {name: values.sum() for name, values in metrics.items()}
    counts = {name: sums.pop(name) for name in ('steps', 'finite_steps')}
    means = {name: value / jnp.maximum(counts['finite_steps'], 1) for name, value in sums.items()}
    return state, means | counts

  return train
