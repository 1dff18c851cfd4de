"""The train state, the jitted train step, and the loop around it.

A run is a function of (config, seed, data): step n draws its keys from fold_in(seed, n), no key is
stored, and a resumed run repeats bit for bit what it would have done.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax import lax

from patch_svdd_jax import architecture, losses, optimizer, sampling
from patch_svdd_jax.encoders import Encoder, PositionClassifier
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.geometry import ImageSize

Params = Mapping[str, Any]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
  """All that changes during training.

  Attributes:
    step: i32[], steps taken.
    params: 'encoder' and 'classifiers', the latter by scale ('k64', ...).
    opt_state: the optimiser's.
  """

  step: jax.Array
  params: Params
  opt_state: optax.OptState


class NonFiniteLossError(UserError):
  """The loss or its gradient became NaN or infinite."""


def scale_name(receptive_field: int) -> str:
  """The name of a scale in parameters, metrics and tables, as 'k64'."""
  return f'k{receptive_field}'


def init_encoder(config: ml_collections.ConfigDict) -> Params:
  """The untrained encoder's parameters: a function of `config.encoder` and `config.seed`."""
  shape = architecture.from_config(config.encoder)
  smallest = jnp.zeros((1, shape.levels[-1], shape.levels[-1], 3))
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  return Encoder(shape).init(key, smallest, method='initialize')['params']


def init_state(config: ml_collections.ConfigDict) -> TrainState:
  """The state before the first step."""
  embedding = jnp.zeros((1, config.encoder.embed_dim))
  classifier = PositionClassifier(config.train.train_last_layer)
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  params = {
    'encoder': init_encoder(config),
    'classifiers': {
      scale_name(k): classifier.init(jax.random.fold_in(key, k), embedding, embedding)['params']
      for k in config.encoder.scales
    },
  }
  return TrainState(jnp.int32(0), params, optimizer.from_config(config.train).init(params))


def make_loss(config: ml_collections.ConfigDict, image_size: ImageSize) -> Callable:
  """Returns loss(params, key, images, mean) -> (L_Patch SVDD, metrics)  (Yi & Yoon 2020, eq. 6).

  L = sum over scales of  L_SSL + lambda L_SVDD'.

  Raises:
    UserError: pairs of a scale cannot be drawn from images of this size.
  """
  encoder = Encoder(architecture.from_config(config.encoder))
  classifier = PositionClassifier(config.train.train_last_layer)
  train = config.train
  for scale in config.encoder.scales:
    sampling.check_pairs(image_size, scale, train.position_pairs)
  samplers = {
    scale: sampling.make_sampler(scale, train.batch_size, train.position_pairs, train.augment)
    for scale in config.encoder.scales
  }

  def scale_loss(
    params: Params, key: jax.Array, images: jax.Array, mean: jax.Array, scale: int
  ) -> tuple[jax.Array, Metrics]:
    pairs = samplers[scale](key, images, mean)
    patches = jnp.concatenate(
      [pairs.position_first, pairs.position_second, pairs.neighbour_first, pairs.neighbour_second]
    )
    z: Any = encoder.apply({'params': params['encoder']}, patches, method='embed_patches')
    first, second, near, nearer = jnp.split(z, 4)
    head = {'params': params['classifiers'][scale_name(scale)]}
    logits: Any = classifier.apply(head, first, second)
    position = losses.position_loss(logits, pairs.positions)
    neighbour = losses.neighbour_loss(near, nearer)
    metrics = {
      'position_loss': position,
      'position_accuracy': losses.position_accuracy(logits, pairs.positions),
      'neighbour_loss': neighbour,
      'embedding_spread': losses.embedding_spread(lax.stop_gradient(near)),
    }
    named = {f'{name}/{scale_name(scale)}': value for name, value in metrics.items()}
    return position + train.svdd_weight * neighbour, named

  def loss(
    params: Params, key: jax.Array, images: jax.Array, mean: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    total = jnp.float32(0)
    metrics: Metrics = {}
    for scale in config.encoder.scales:
      value, named = scale_loss(params, jax.random.fold_in(key, scale), images, mean, scale)
      total, metrics = total + value, metrics | named
    return total, {'loss': total} | metrics

  return loss


def make_train_step(config: ml_collections.ConfigDict, image_size: ImageSize) -> jax.stages.Wrapped:
  """Returns the jitted train(state, images, mean, key) -> (state, metrics): steps in one scan.

  The state is donated. Steps past `config.train.steps` do nothing, so that one program serves the
  last call too. A step whose loss or gradient is not finite does nothing either: the state stays
  what was last finite, and the metric 'finite_steps' falls short of 'steps'.

  Args:
    config: the whole config.
    image_size: (height, width) of the training images.

  Returns:
    A function of the state, images u8[N, H, W, 3], the mean f32[H, W, 3] or f32[1, 1, 3] and the
    run's key. Metrics are means over the finite steps of the call.
  """
  loss = make_loss(config, image_size)
  optimise = optimizer.from_config(config.train)

  def step(
    state: TrainState, images: jax.Array, mean: jax.Array, run_key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(run_key, state.step)
    gradient, metrics = jax.grad(loss, has_aux=True)(state.params, key, images, mean)
    updates, opt_state = optimise.update(gradient, state.opt_state, state.params)
    moved = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(optax.tree.norm(gradient))
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    metrics = {name: jnp.where(finite, value, 0.0) for name, value in metrics.items()}
    return state, metrics | {'steps': jnp.float32(1), 'finite_steps': finite.astype(jnp.float32)}

  def train(
    state: TrainState, images: jax.Array, mean: jax.Array, run_key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    def rest(state: TrainState) -> tuple[TrainState, Metrics]:
      shapes = jax.eval_shape(step, state, images, mean, run_key)[1]
      return state, jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
      return lax.cond(
        state.step < config.train.steps, lambda s: step(s, images, mean, run_key), rest, state
      )

    state, metrics = lax.scan(body, state, length=config.train.steps_per_call)
    sums = {name: values.sum() for name, values in metrics.items()}
    counts = {name: sums.pop(name) for name in ('steps', 'finite_steps')}
    means = {name: value / jnp.maximum(counts['finite_steps'], 1) for name, value in sums.items()}
    return state, means | counts

  return jax.jit(train, donate_argnums=0)


class Monitor(Protocol):
  """Who is told how training goes."""

  def start(self) -> None:
    """Compilation is over, the first step begins."""

  def record(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Takes the mean metrics of the call that ended at `step` after `seconds` of computing."""


class Saver(Protocol):
  """Where train states are kept."""

  def save(self, state: TrainState) -> None:
    """Saves the state under its step, at once."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How training ended: the state, and whether the last step was reached."""

  state: TrainState
  finished: bool


def fit(
  config: ml_collections.ConfigDict,
  state: TrainState,
  images: np.ndarray,
  mean: np.ndarray,
  *,
  monitor: Monitor,
  saver: Saver,
  should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
  """Trains from `state` to `config.train.steps`.

  The images are put on the device once. The loop then moves nothing there (a transfer guard sees to
  it), and runs one ahead-of-time compiled program, so nothing can recompile.

  Args:
    config: the whole config.
    state: the initial or a restored state.
    images: u8[N, H, W, 3], normal images.
    mean: of `standardisation.training_mean`.
    monitor: is told the metrics of each call.
    saver: keeps a state every `config.checkpoint.every` steps, at the end, and when told to stop.
    should_stop: asked between calls; True saves and leaves.

  Raises:
    NonFiniteLossError: the state that was last finite has been saved.
    UserError: a setting makes no sense for these images.
  """
  if int(state.step) >= config.train.steps:
    return Outcome(state, finished=True)
  images, mean, key = jax.device_put((images, mean, jax.random.key(config.seed)))
  train_step = make_train_step(config, images.shape[1:3])
  train = train_step.lower(state, images, mean, key).compile()
  monitor.start()
  step = saved = int(state.step)
  while step < config.train.steps and not should_stop():
    start = time.perf_counter()
    with jax.transfer_guard_host_to_device('disallow'):
      state, on_device = train(state, images, mean, key)
      metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
    seconds = time.perf_counter() - start
    step = int(state.step)
    finite = metrics.pop('finite_steps') == metrics.pop('steps')
    if not finite:
      if step > saved:
        saver.save(state)
      raise NonFiniteLossError(
        f'the loss became infinite or NaN at step {step + 1}; the state before it is saved: lower '
        f'config.train.learning_rate ({config.train.learning_rate:g}) or config.train.svdd_weight '
        f'({config.train.svdd_weight:g}), or set config.train.clip_norm, and start anew'
      )
    monitor.record(step, metrics, seconds)
    if step - saved >= config.checkpoint.every:
      saver.save(state)
      saved = step
  if step > saved:
    saver.save(state)
  return Outcome(state, finished=step >= config.train.steps)


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses settings that no run can use, by name, before anything is read or written.

  Raises:
    UserError: names the key and what it may be.
  """
  architecture.from_config(config.encoder)
  optimizer.learning_rate(config.train)
  for scale in config.encoder.scales:
    sampling.check_pairs(config.data.image_size, scale, config.train.position_pairs)
  for section, name in (
    ('train', 'steps'),
    ('train', 'steps_per_call'),
    ('train', 'batch_size'),
    ('checkpoint', 'every'),
    ('checkpoint', 'keep'),
  ):
    if config[section][name] < 1:
      raise UserError(f'config.{section}.{name}={config[section][name]}: give at least 1')


def pairs_per_step(config: ml_collections.ConfigDict) -> int:
  """Position and neighbour pairs of all scales that a step learns from."""
  return 2 * config.train.batch_size * len(config.encoder.scales)
