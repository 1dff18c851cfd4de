"""The loop: what it is a function of, saves and refuses, and its steady state."""

import contextlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import trace_file
from patch_svdd_jax.system import profiling
from patch_svdd_jax.system.sharding import all_devices
from patch_svdd_jax.training import loop, train_state, train_step
from patch_svdd_jax.training.checkpoints import Checkpoints
from patch_svdd_jax.training.monitoring import TrainingMonitor
from tests.support.runs import COUNT, IMAGES, MEAN, assert_same_bits, moved, on_host, tiny_config

SCALES = ('k16', 'k8')
STEPS = 5  # no multiple of the two steps of a call
METRICS = (
  'position_loss',
  'position_accuracy',
  'neighbour_loss',
  'embedding_spread',
  'effective_rank',
)
TRANSFER = 'Disallowed host-to-device transfer'


@pytest.fixture(scope='module', autouse=True)
def shared_train_steps():
  """Traces the train step of a config once, however many tests run it."""
  made, make = {}, train_step.make_train_step

  def make_once(config, count, mesh):
    program = json.dumps([config.encoder.to_dict(), config.train.to_dict(), count, mesh.size])
    if program not in made:
      made[program] = make(config, count, mesh)
    return made[program]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_step, 'make_train_step', make_once)
    yield


class Notes:
  """A monitor and a saver that remember what they were told."""

  def __init__(self):
    self.starts, self.records, self.saved = 0, [], []

  def start(self):
    self.starts += 1

  def record(self, step, metrics, seconds):
    self.records.append((step, metrics, seconds))

  def record_validation(self, step, statistics):
    assert statistics == {}

  def save(self, state, statistics):
    assert statistics == {}
    # A checkpoint cannot be written twice.
    assert int(state.step) not in [int(other.step) for other in self.saved]
    self.saved.append(on_host(state))

  @property
  def steps(self):
    return [step for step, _, _ in self.records]


def fit(config, images=IMAGES, mean=MEAN, state=None, should_stop=None, profile=profiling.OFF):
  """Trains; returns the outcome with its state on the host, and the notes."""
  notes = Notes()
  outcome = loop.fit(
    config,
    train_state.init_state(config) if state is None else state,
    images,
    mean,
    loop.Callbacks(
      notes,
      notes,
      should_stop=(lambda: should_stop(notes)) if should_stop else lambda: False,
      profile=profile,
    ),
  )
  return loop.Outcome(on_host(outcome.state), outcome.finished), notes


@pytest.fixture(scope='module')
def whole_run():
  return fit(tiny_config())


@pytest.fixture(scope='module')
def single_steps():
  """The state before each step, and after the last, and the metrics of each, by calls of one."""
  config = tiny_config(steps_per_call=1, every=1)
  _, notes = fit(config)
  states = [on_host(train_state.init_state(config)), *notes.saved]
  return states, [metrics for _, metrics, _ in notes.records]


def test_metrics_of_a_call_are_means_over_its_steps(whole_run, single_steps):
  _, notes = whole_run
  _, single = single_steps
  assert notes.steps == [2, 4, 5]
  for (_, found, _), of_call in zip(
    notes.records, (single[:2], single[2:4], single[4:]), strict=True
  ):
    assert sorted(found) == sorted(['loss', *(f'{name}/{k}' for name in METRICS for k in SCALES)])
    for name, value in found.items():
      assert value == pytest.approx(np.mean([step[name] for step in of_call]), rel=1e-5, abs=1e-6)


# What a run is a function of.


def test_steps_past_the_last_do_nothing(whole_run, single_steps):
  # The same bits, though the two programs are different ones; on other hardware 1e-6 would do.
  assert whole_run[0].finished
  assert whole_run[0].state.step == STEPS
  assert_same_bits(whole_run[0].state, single_steps[0][-1])


def test_a_run_repeats_bit_for_bit(whole_run):
  assert_same_bits(fit(tiny_config())[0].state, whole_run[0].state)


def test_a_trace_changes_no_bit_and_shows_the_calls_asked_for(whole_run, tmp_path):
  profile = profiling.Profile(tmp_path, (3, 5))
  outcome, notes = fit(tiny_config(), profile=profile)
  assert_same_bits(outcome.state, whole_run[0].state)
  assert notes.steps == [2, 4, 5]
  assert profile.summary().endswith('steps 2:5')
  trace = trace_file.read(trace_file.newest(tmp_path), ['PjRtCpuClient::Compile', 'save'])
  assert [step.name for step in trace.steps] == ['train', 'train']
  assert [stage.name for stage in trace.stages] == []


def test_another_seed_is_another_run(whole_run):
  other = fit(tiny_config(seed=1))[0].state
  assert all(moved(other.params, whole_run[0].state.params).values())


@pytest.fixture(scope='module')
def reckless_run():
  """The states before and after the only finite step, and the error's message."""
  config = tiny_config(scales=(8,), learning_rate=1e30, train_last_layer=True)
  before, notes = train_state.init_state(config), Notes()
  kept = on_host(before)
  with pytest.raises(loop.NonFiniteLossError) as raised:
    loop.fit(config, before, IMAGES, MEAN, loop.Callbacks(notes, notes))
  [saved] = notes.saved
  return kept, saved, str(raised.value)


def test_the_last_layer_moves_where_it_is_trained(reckless_run):
  before, after, _ = reckless_run
  assert all(moved(before.params, after.params).values())


# Losses that are not finite.


def test_a_bad_pixel_stops_the_run_before_the_step_that_meets_it(single_steps):
  states, _ = single_steps
  bad = MEAN.copy()
  bad[0, 12, 0] = np.nan  # most patches lie elsewhere
  notes = Notes()
  with pytest.raises(loop.NonFiniteLossError) as raised:
    loop.fit(
      tiny_config(),
      train_state.init_state(tiny_config()),
      IMAGES,
      bad,
      loop.Callbacks(notes, notes),
    )
  message = str(raised.value)
  good = int(re.search(r'at step (\d+);', message)[1]) - 1
  assert 0 < good < STEPS
  for what in ('learning_rate (0.0001)', 'svdd_weight (0.1)', 'clip_norm'):
    assert f'config.train.{what}' in message
  # As if it had ended there.
  [saved] = notes.saved
  assert_same_bits(saved, states[good])
  assert notes.steps == [step for step in (2, 4) if step <= good]


def test_a_reckless_learning_rate_stops_the_run(reckless_run):
  _, saved, message = reckless_run
  assert re.search(r'at step 2; .*learning_rate \(1e\+30\)', message)
  assert saved.step == 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


def test_a_state_that_came_from_a_checkpoint_is_not_saved_again(single_steps):
  state, notes = jax.device_put(single_steps[0][2]), Notes()
  bad = np.full_like(MEAN, np.nan)
  with pytest.raises(loop.NonFiniteLossError, match='at step 3;'):
    loop.fit(tiny_config(), state, IMAGES, bad, loop.Callbacks(notes, notes))
  assert not notes.saved


# The loop.


@contextlib.contextmanager
def compilations():
  """A list that grows by an entry with every program that XLA compiles or loads."""
  found = []

  def note(event, seconds, **about):
    if event == '/jax/core/compile/backend_compile_duration':
      found.append(about)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


class SteadyState(TrainingMonitor):
  """Forbids all transfers to the device from the start on, and notes what is compiled."""

  def __enter__(self):
    self.strict = contextlib.ExitStack()
    return super().__enter__()

  def start(self):
    self.compiled = self.strict.enter_context(compilations())
    self.strict.enter_context(jax.transfer_guard_host_to_device('disallow'))
    super().start()

  def __exit__(self, *error):
    self.strict.close()
    super().__exit__(*error)


def test_steady_state(tmp_path):
  """From the first step on nothing is compiled, and nothing is moved to the device.

  That holds for the whole loop, its records and checkpoints included: it compiles its program
  beforehand, so that not even the first call does. The control tests show that both would be seen.
  """
  config = tiny_config(every=2)
  state = train_state.init_state(config)
  with (
    Checkpoints(tmp_path, keep=9) as checkpoints,
    SteadyState(tmp_path, 0, STEPS, loop.pairs_per_step(config)) as monitor,
  ):
    loop.fit(config, state, IMAGES, MEAN, loop.Callbacks(monitor, checkpoints))
    assert checkpoints.latest == STEPS
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3
  assert monitor.compiled == []


def test_steady_state_control_a_compilation_is_seen():
  double = jax.jit(lambda x: 2 * x)
  double(jnp.zeros(3))
  other = jnp.zeros(4)
  with compilations() as compiled:
    double(jnp.zeros(3))
    assert compiled == []
    double(other)  # of another shape
    assert len(compiled) == 1


def test_steady_state_control_a_transfer_is_refused(monkeypatch):
  """Where the step gets its images from the host, the guard inside `fit` stops it.

  Also on a CPU, where the transfer is a copy at most.
  """
  make = train_step.make_train_step

  class FromHost:
    def __init__(self, *given):
      self.step = make(*given)

    def lower(self, *given):
      self.program = self.step.lower(*given)
      return self

    def compile(self):
      program = self.program.compile()
      return lambda state, _, mean, hyperparams: program(state, IMAGES, mean, hyperparams)

  monkeypatch.setattr(train_step, 'make_train_step', FromHost)
  with pytest.raises(jax.errors.JaxRuntimeError, match=TRANSFER):
    fit(tiny_config())


def test_the_loop_saves_every_so_many_steps_and_at_the_end(whole_run):
  outcome, notes = fit(tiny_config(every=3))
  assert notes.starts == 1
  assert all(seconds > 0 for _, _, seconds in notes.records)
  assert [int(state.step) for state in notes.saved] == [4, 5]  # rounded up to whole calls
  assert_same_bits(notes.saved[-1], outcome.state)
  assert [int(state.step) for state in whole_run[1].saved] == [5]


def test_told_to_stop_it_saves_and_leaves(single_steps):
  outcome, notes = fit(tiny_config(), should_stop=lambda notes: notes.records)
  assert not outcome.finished
  assert [int(state.step) for state in notes.saved] == [2]
  assert_same_bits(outcome.state, single_steps[0][2])


def test_a_finished_run_takes_no_step(whole_run):
  state = jax.device_put(whole_run[0].state)
  outcome, notes = fit(tiny_config(), state=state)
  assert outcome.finished
  assert not notes.records
  assert not notes.saved
  assert_same_bits(outcome.state, whole_run[0].state)


# What lies on the devices, and settings that no run can use.


def test_images_are_dealt_out_where_they_are_sharded():
  mesh = all_devices()
  for name, share in (('replicated', COUNT), ('sharded', 2)):
    images, mean, hyperparams = loop.place_inputs(tiny_config(images=name), IMAGES, MEAN, mesh)
    assert [len(shard.data) for shard in images.addressable_shards] == [share] * 4
    np.testing.assert_array_equal(images[:COUNT], IMAGES)
    assert mean.sharding.is_fully_replicated
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(hyperparams))
    assert images.sharding.is_fully_replicated == (name == 'replicated')
  assert not images[COUNT:].any()


def test_pairs_of_a_step():
  assert loop.pairs_per_step(tiny_config()) == 32  # 8 of two kinds at two scales
