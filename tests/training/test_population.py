"""A population equals runs of their own, whatever becomes of its members, and resumes."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.system import sharding
from patch_svdd_jax.training import loop, population, train_state, train_step

IMAGE_SIZE = (40, 48)
STEPS = 5  # no multiple of the two steps of a call
# (seed, lambda, learning rate); with the last one's a single step leads out of float32.
SETTINGS = ((0, 0.1, 1e-3), (0, 0.0, 1e-3), (3, 2.0, 1e-2), (1, 0.1, 1e38))
LOST = 3


def tiny_config(seed, svdd_weight, learning_rate):
  config = default.get_config()
  config.seed = seed
  config.data.image_size = IMAGE_SIZE
  config.checkpoint.every = 2
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=STEPS, steps_per_call=2, batch_size=8)
  config.train.update(svdd_weight=svdd_weight, learning_rate=learning_rate)
  return config


CONFIGS = [tiny_config(*values) for values in SETTINGS]


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (4, *IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def mean(images):
  return images.mean(axis=0, dtype=np.float32)


@pytest.fixture(scope='module')
def fit(images, mean):
  return population.make_fit(CONFIGS[0], images, mean)


class Notes:
  """A monitor that remembers what it was told."""

  def __init__(self):
    self.starts, self.records, self.losses = 0, [], []

  def start(self):
    self.starts += 1

  def record(self, step, members, seconds):
    assert seconds > 0
    self.records.append((step, members))

  def lost(self, index, step):
    self.losses.append((index, step))


class Kept(dict):
  """A saver that keeps states by their steps, each of which can be written once."""

  def save(self, state, statistics):
    assert statistics == {}
    assert int(state.step) not in self
    self[int(state.step)] = state


def initial_states():
  return [train_state.init_state(config) for config in CONFIGS]


@pytest.fixture(scope='module')
def whole(fit):
  notes, savers = Notes(), [Kept() for _ in CONFIGS]
  outcome = fit(CONFIGS, initial_states(), monitor=notes, savers=savers)
  return outcome, notes, savers


@pytest.fixture(scope='module')
def separate(images, mean):
  """The last state of each member that is not lost, and its metrics by step, trained by itself."""
  mesh = sharding.all_devices()
  train = train_step.make_train_step(CONFIGS[0], len(images), mesh)
  found = []
  for config in CONFIGS[:LOST]:
    inputs = loop.place_inputs(config, images, mean, mesh)
    state = sharding.place(train_state.init_state(config), mesh)
    metrics = {}
    for _ in range(3):
      state, of_call = train(state, *inputs)
      metrics[int(state.step)] = {name: float(value) for name, value in of_call.items()}
    found.append((jax.device_get(state), metrics))
  return found


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert np.array(one).tobytes() == np.array(other).tobytes()


@pytest.mark.parametrize('index', range(LOST))
def test_a_member_equals_a_run_of_its_own(whole, separate, index):
  outcome, notes, savers = whole
  state, metrics = separate[index]
  assert outcome.finished
  assert int(outcome.states[index].step) == STEPS
  for one, other in zip(
    jax.tree.leaves(outcome.states[index]), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
  recorded = {members[index][0]: members[index][1] for _, members in notes.records}
  assert recorded.keys() == metrics.keys() == {2, 4, 5}
  for step, expected in metrics.items():
    assert expected.pop('steps') == expected.pop('finite_steps')
    assert recorded[step] == pytest.approx(expected, rel=1e-3, abs=1e-5)
  assert list(savers[index]) == [2, 4, 5]
  assert_same_bits(savers[index][5], outcome.states[index])


def test_members_differ(whole):
  losses = [metrics['loss'] for _, metrics in whole[1].records[-1][1].values()]
  assert len(set(losses)) == LOST


def test_a_lost_member_stays_where_it_was_finite_and_is_reported_once(whole):
  outcome, notes, savers = whole
  assert outcome.lost == {LOST}
  assert notes.losses == [(LOST, 1)]
  assert notes.starts == 1
  assert all(LOST not in members for _, members in notes.records)
  assert list(savers[LOST]) == [1]
  for state in (outcome.states[LOST], savers[LOST][1]):
    assert int(state.step) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_stopped_population_goes_on_from_different_steps(fit, whole):
  notes, savers = Notes(), [Kept() for _ in CONFIGS]
  stopped = fit(
    CONFIGS,
    initial_states(),
    monitor=notes,
    savers=savers,
    should_stop=lambda: len(notes.records) == 2,
  )
  assert not stopped.finished
  assert [list(saver) for saver in savers] == [[2, 4], [2, 4], [2, 4], [1]]
  # As where a process was killed between the saves of two members, and one is at the end.
  states = [savers[0][2], savers[1][4], whole[0].states[2], savers[LOST][1]]
  notes, savers = Notes(), [Kept() for _ in CONFIGS]
  resumed = fit(CONFIGS, states, monitor=notes, savers=savers)
  assert resumed.finished
  assert resumed.lost == {LOST}
  assert [step for step, _ in notes.records] == [4, 5]
  assert [set(members) for _, members in notes.records] == [{0, 1}, {0}]
  assert [list(saver) for saver in savers] == [[4, 5], [5], [], []]
  for one, other in zip(resumed.states, whole[0].states, strict=True):
    assert_same_bits(one, other)


def test_a_population_ends_when_all_are_lost():
  notes = Notes()
  members = population.Members([0, 0], 100, notes)
  assert members.step == 0
  counts = {'steps': np.float32([2, 2]), 'finite_steps': np.float32([2, 1]), 'loss': np.ones(2)}
  assert members.take(np.array([2, 1]), dict(counts), 1.0) == 2
  assert notes.records == [(2, {0: (2, {'loss': 1.0})})]
  counts['finite_steps'] = np.float32([0, 0])
  assert members.take(np.array([2, 1]), dict(counts), 1.0) == 100
  assert notes.losses == [(1, 1), (0, 2)]
  assert members.lost == {0, 1}
