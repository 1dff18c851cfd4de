"""The loop around the train step.

A run is a function of (config, seed, data): step n draws its keys from fold_in(seed, n), no key is
stored, and a resumed run repeats bit for bit what it would have done.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.system import profiling, sharding
from patch_svdd_jax.system.batching import pad_images
from patch_svdd_jax.system.profiling import Profile
from patch_svdd_jax.training import (
  deep_svdd_centre,
  places,
  train_step,
  windows,
)
from patch_svdd_jax.training.collapse import CollapseError
from patch_svdd_jax.training.objective import Metrics
from patch_svdd_jax.training.train_state import Hyperparams, TrainState, hyperparams


class NonFiniteLossError(UserError):
  """The loss or its gradient became NaN or infinite at a step."""

  def __init__(self, step: int, train: ml_collections.ConfigDict):
    super().__init__(
      f'the loss became infinite or NaN at step {step}; the state before it is saved: lower '
      f'config.train.learning_rate ({train.learning_rate:g}) or config.train.svdd_weight '
      f'({train.svdd_weight:g}), or set config.train.clip_norm, and start anew'
    )


class Monitor(Protocol):
  """Who is told how training goes."""

  def start(self) -> None:
    """Notes that compilation is over and the first step begins."""

  def record(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
    """Takes the mean metrics of the call that ended at `step` after `seconds` of computing."""

  def record_validation(self, step: int, statistics: Mapping[str, float]) -> None:
    """Takes the statistics of the held-out images at `step`."""

  def warn(self, text: str) -> None:
    """Takes a line that the user should see."""


class Saver(Protocol):
  """Where train states are kept."""

  def save(self, state: TrainState, statistics: Mapping[str, float]) -> None:
    """Saves the state under its step, at once; with no statistics it will not be chosen."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How training ended: the state, and whether the last step was reached."""

  state: TrainState
  finished: bool


@dataclasses.dataclass(frozen=True)
class Callbacks:
  """Who is told how training goes, keeps its states, and says when it stops.

  Attributes:
    monitor: is told the metrics of each call.
    saver: keeps a state, with its statistics, where `config.checkpoint.every` divides the step (or
      at the end of the call in which it does) and at the end; one without, when told to stop.
    validate: the statistics of the held-out images; none where there are no such images.
    watch: what to say of a collapse in the call that ended at a step, given its metrics.
    should_stop: asked between calls; True saves and leaves.
    profile: records some of the steps.
  """

  monitor: Monitor
  saver: Saver
  validate: Callable[[Params], Mapping[str, float]] = lambda _: {}
  watch: Callable[[int, Mapping[str, float]], str | None] = lambda *_: None
  should_stop: Callable[[], bool] = lambda: False
  profile: Profile = profiling.OFF


def fit(
  config: ml_collections.ConfigDict,
  state: TrainState,
  images: np.ndarray,
  mean: np.ndarray,
  callbacks: Callbacks,
  regions: np.ndarray | None = None,
) -> Outcome:
  """Trains from `state` to `config.train.steps`.

  The images are put on the device once. The loop then moves nothing there (a transfer guard sees to
  it), and runs one ahead-of-time compiled program, so nothing can recompile.

  Args:
    config: the whole config.
    state: the initial or a restored state; donated.
    images: u8[N, H, W, 3], normal images.
    mean: of `mean_image.training_mean`.
    callbacks: who is told, keeps, and says when to stop.
    regions: bool[N, H, W], where pairs are drawn; None is everywhere.

  Raises:
    NonFiniteLossError: the state that was last finite has been saved.
    CollapseError: `config.train.on_collapse` is 'stop'; the state has been saved.
    UserError: a setting makes no sense for these images, or steps to be recorded are none of these.
  """
  callbacks.profile.begin(int(state.step), config.train.steps, config.train.steps_per_call)
  if int(state.step) >= config.train.steps:
    return Outcome(state, finished=True)
  mesh = sharding.by_slice(jax.devices())
  on_mesh = place_inputs(config, images, mean, mesh, regions)
  state = sharding.place(state, mesh)
  step_function = train_step.make_train_step(config, len(images), mesh)
  train = step_function.lower(state, *on_mesh).compile()
  monitor = callbacks.monitor
  monitor.start()

  def take(reached: np.ndarray, metrics: dict[str, np.ndarray], seconds: float) -> int:
    step = int(reached)
    if metrics.pop('finite_steps') != metrics.pop('steps'):
      raise NonFiniteLossError(step + 1, config.train)
    values = {name: float(value) for name, value in metrics.items()}
    monitor.record(step, values, seconds)
    if collapsed := callbacks.watch(step, values):
      if config.train.on_collapse == 'stop':
        raise CollapseError(f'{collapsed}; the state is saved')
      monitor.warn(collapsed)
    return step

  def keep(state: TrainState, choosable: bool) -> None:
    statistics: Mapping[str, float] = {}
    if choosable:
      with jax.profiler.TraceAnnotation('validate'):
        statistics = callbacks.validate(state.params)
      monitor.record_validation(int(jax.device_get(state.step)), statistics)
    with jax.profiler.TraceAnnotation('save'):
      callbacks.saver.save(state, statistics)

  return loop(
    config,
    lambda state: train(state, *on_mesh),
    state,
    int(state.step),
    take=take,
    keep=keep,
    should_stop=callbacks.should_stop,
    profile=callbacks.profile,
  )


def loop(
  config: ml_collections.ConfigDict,
  train: Callable[[TrainState], tuple[TrainState, Metrics]],
  state: TrainState,
  step: int,
  *,
  take: Callable[[np.ndarray, dict[str, np.ndarray], float], int],
  keep: Callable[[TrainState, bool], None],
  should_stop: Callable[[], bool],
  profile: Profile = profiling.OFF,
) -> Outcome:
  """Calls the train step until `config.train.steps`, of one run or of a population.

  Args:
    config: the whole config.
    train: the compiled train step.
    state: of one run, or with a leading axis of members; donated.
    step: the step it has reached.
    take: is told the steps that were reached, i32[] or i32[members], the metrics of the call, and
      its seconds; returns how far all have come.
    keep: saves a state, and is told whether it is one to choose from.
    should_stop: asked between calls.
    profile: records some of the steps; it has begun.

  Raises:
    NonFiniteLossError, CollapseError: `take` raised it; the state has been saved.
  """
  every, saved = config.checkpoint.every, step
  while step < config.train.steps and not should_stop():
    with profile.step('train', step, config.train.steps_per_call):
      start = time.perf_counter()
      with jax.transfer_guard('disallow'):
        state, on_device = train(state)
        metrics, reached = jax.device_get((on_device, state.step))
      seconds = time.perf_counter() - start
    before = step
    try:
      step = take(reached, metrics, seconds)
    except (NonFiniteLossError, CollapseError):
      if reached.max() > saved:
        keep(state, False)
      raise
    # By the step, not by what was saved last: a run that was stopped in between, and saved then,
    # has to offer the same states to choose from as one that was not.
    if step // every > before // every or step == config.train.steps:
      keep(state, True)
      saved = step
  if step > saved:
    # Told to stop: there may be no time for statistics.
    keep(state, False)
  return Outcome(state, finished=step >= config.train.steps)


def place_inputs(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  mean: np.ndarray,
  mesh: Mesh,
  regions: np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array, Hyperparams]:
  """Places everything that each call of the train step takes besides the state on the mesh."""
  spec, _ = windows.PLACEMENTS[config.train.images]
  padded = pad_images(images, windows.padded_count(len(images), spec, mesh))
  replicated = NamedSharding(mesh, sharding.REPLICATED)
  centres = deep_svdd_centre.initial(config, images, mean, regions)
  run = jax.jit(lambda: hyperparams(config, centres), out_shardings=replicated)()
  run = run._replace(places=sharding.place(places.make(config, regions), mesh))
  return sharding.place(padded, mesh, spec), sharding.place(mean, mesh), run


def pairs_per_step(config: ml_collections.ConfigDict) -> int:
  """Counts position and neighbour pairs of all scales that a step learns from."""
  return int(2 * config.train.batch_size * len(config.encoder.scales))
