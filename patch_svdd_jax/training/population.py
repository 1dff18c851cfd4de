"""Runs that differ in seed, lambda and learning rate alone, trained at once as one program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding

from patch_svdd_jax.system import sharding
from patch_svdd_jax.training import deep_svdd_centre, loop, train_step
from patch_svdd_jax.training.train_state import Hyperparams, TrainState, hyperparams


class PopulationMonitor(Protocol):
  """Who is told how training goes."""

  def start(self) -> None:
    """Notes that compilation is over and the first step begins."""

  def record(
    self, step: int, members: Mapping[int, tuple[int, Mapping[str, float]]], seconds: float
  ) -> None:
    """Takes the step that all have reached, and of each that moved its own step and metrics."""

  def lost(self, index: int, step: int) -> None:
    """Notes that a member's loss or gradient became NaN or infinite at `step`, where it stays."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How training ended.

  Attributes:
    states: of the members, on the host.
    finished: whether all that are not lost have reached the last step.
    lost: the indices of those whose loss or gradient became NaN or infinite.
  """

  states: list[TrainState]
  finished: bool
  lost: frozenset[int]


def stack(members: Sequence[Any]) -> Any:
  """Stacks trees of one structure: arrays get a leading axis of members."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def unstack(states: TrainState) -> list[TrainState]:
  """Returns the members of a stacked state, as numpy arrays."""
  on_host = jax.device_get(states)
  return [
    jax.tree.map(lambda leaf, index=index: leaf[index], on_host)
    for index in range(len(on_host.step))
  ]


class Savers:
  """Saves each member of a stacked state with its own saver, if it has moved since."""

  def __init__(self, savers: Sequence[loop.Saver], steps: Sequence[int]):
    self._savers = savers
    self._saved = list(steps)

  def keep(self, state: TrainState, _: bool) -> None:
    """Saves the members, without statistics of held-out images: each one's newest is its choice."""
    for index, member in enumerate(unstack(state)):
      if member.step > self._saved[index]:
        self._savers[index].save(member, {})
        self._saved[index] = int(member.step)


class Members:
  """Who of the members goes on; takes what the loop is told."""

  def __init__(self, steps: Sequence[int], last: int, monitor: PopulationMonitor):
    self._reached = np.array(steps)
    self._last = last
    self._monitor = monitor
    self.lost: set[int] = set()

  @property
  def step(self) -> int:
    """How far all have come that go on; the last step where none does."""
    going = [int(step) for index, step in enumerate(self._reached) if index not in self.lost]
    return min(going, default=self._last)

  def take(self, reached: np.ndarray, metrics: dict[str, np.ndarray], seconds: float) -> int:
    """Takes the steps i32[members] reached by a call and its metrics f32[members]."""
    finite = metrics.pop('finite_steps') == metrics.pop('steps')
    newly_lost = set(np.flatnonzero(~finite).tolist()) - self.lost
    self.lost |= newly_lost
    moved = {
      index: (int(reached[index]), {name: float(each[index]) for name, each in metrics.items()})
      for index in np.flatnonzero(finite & (reached > self._reached)).tolist()
    }
    self._reached = reached
    self._monitor.record(self.step, moved, seconds)
    for index in sorted(newly_lost):
      self._monitor.lost(index, int(reached[index]))
    return self.step


class Fit(Protocol):
  """Trains as many members at once as it is given."""

  def __call__(
    self,
    configs: Sequence[ml_collections.ConfigDict],
    states: Sequence[TrainState],
    *,
    monitor: PopulationMonitor,
    savers: Sequence[loop.Saver],
    should_stop: Callable[[], bool] = lambda: False,
  ) -> Outcome:
    """Trains members to the end, or until told to stop.

    Args:
      configs: of the members; from make_fit's they differ in seed, svdd_weight and learning_rate.
      states: their initial or restored states.
      monitor: is told the metrics of each call.
      savers: one for each, which keep its states as `loop.fit` would.
      should_stop: asked between calls; True saves and leaves.
    """


def make_fit(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  mean: np.ndarray,
  regions: np.ndarray | None = None,
) -> Fit:
  """Returns fit(configs, states, *, monitor, savers, should_stop) -> Outcome.

  Each call trains as many members as it is given at once; calls with as many of them share one
  compilation, and all share the images, which are put on the devices here.

  Each member takes the steps that `loop.fit` would take with its config alone, up to the order
  of sums. One whose loss or gradient becomes NaN or infinite stays where it last was finite, while
  the others go on. Members may start from different steps.

  Args:
    config: what the members have in common.
    images: u8[N, H, W, 3], normal images.
    mean: of `mean_image.training_mean`.
    regions: bool[N, H, W], where pairs are drawn; None is everywhere.

  Raises:
    UserError: a setting makes no sense for these images.
  """
  mesh = sharding.by_slice(jax.devices())
  replicated = NamedSharding(mesh, sharding.REPLICATED)
  *on_mesh, common = loop.place_inputs(config, images, mean, mesh, regions)
  step_function = train_step.make_train_step(config, len(images), mesh, population=True)

  def fit(
    configs: Sequence[ml_collections.ConfigDict],
    states: Sequence[TrainState],
    *,
    monitor: PopulationMonitor,
    savers: Sequence[loop.Saver],
    should_stop: Callable[[], bool] = lambda: False,
  ) -> Outcome:
    steps = [int(state.step) for state in states]
    members = Members(steps, config.train.steps, monitor)
    centres = [deep_svdd_centre.initial(each, images, mean, regions) for each in configs]
    of_members: Hyperparams = jax.jit(
      lambda: stack([hyperparams(*each) for each in zip(configs, centres, strict=True)]),
      out_shardings=replicated,
    )()._replace(places=common.places)
    stacked = sharding.place(stack(states), mesh)
    train = step_function.lower(stacked, *on_mesh, of_members).compile()
    monitor.start()
    outcome = loop.loop(
      config,
      lambda state: train(state, *on_mesh, of_members),
      stacked,
      members.step,
      take=members.take,
      keep=Savers(savers, steps).keep,
      should_stop=should_stop,
    )
    return Outcome(unstack(outcome.state), outcome.finished, frozenset(members.lost))

  return fit
