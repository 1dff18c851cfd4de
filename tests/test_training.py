"""The train step against float64, what it learns and repeats, its steady state, and its loop."""

import contextlib
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax import architecture, sampling, standardisation, training
from patch_svdd_jax.checkpoints import Checkpoints
from patch_svdd_jax.configs import default
from patch_svdd_jax.encoders import Encoder, PositionClassifier
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.monitoring import TrainingMonitor

IMAGE_SIZE = (40, 48)
SCALES = ('k32', 'k16')
STEPS = 5  # no multiple of the two steps of a call
METRICS = ('position_loss', 'position_accuracy', 'neighbour_loss', 'embedding_spread')
TRANSFER = 'Disallowed host-to-device transfer'


pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module', autouse=True)
def shared_train_steps():
  """Traces the train step of a config once, however many tests run it."""
  made, make = {}, training.make_train_step

  def make_once(config, image_size):
    program = json.dumps([config.encoder.to_dict(), config.train.to_dict(), image_size])
    if program not in made:
      made[program] = make(config, image_size)
    return made[program]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training, 'make_train_step', make_once)
    yield


def tiny_config(seed=0, image_size=IMAGE_SIZE, scales=(32, 16), every=100, **train):
  config = default.get_config()
  config.seed = seed
  config.data.image_size = image_size
  config.checkpoint.every = every
  config.encoder.update(receptive_field=16, scales=scales, depth=3, width=0.25, embed_dim=8)
  settings = {'steps': STEPS, 'steps_per_call': 2, 'batch_size': 4, 'svdd_weight': 0.1}
  config.train.update(settings | train)
  return config


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (4, *IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def mean(images):
  return images.mean(axis=0, dtype=np.float32)


def on_host(state):
  """A copy: the state itself is donated to the next step."""
  return jax.tree.map(np.array, state)


class Notes:
  """A monitor and a saver that remember what they were told."""

  def __init__(self):
    self.starts, self.records, self.saved = 0, [], []

  def start(self):
    self.starts += 1

  def record(self, step, metrics, seconds):
    self.records.append((step, metrics, seconds))

  def save(self, state):
    # A checkpoint cannot be written twice.
    assert int(state.step) not in [int(other.step) for other in self.saved]
    self.saved.append(on_host(state))

  @property
  def steps(self):
    return [step for step, _, _ in self.records]


def fit(config, images, mean, state=None, should_stop=None):
  """Trains; returns the outcome with its state on the host, and the notes."""
  notes = Notes()
  outcome = training.fit(
    config,
    training.init_state(config) if state is None else state,
    images,
    mean,
    monitor=notes,
    saver=notes,
    should_stop=(lambda: should_stop(notes)) if should_stop else lambda: False,
  )
  return training.Outcome(on_host(outcome.state), outcome.finished), notes


@pytest.fixture(scope='module')
def whole_run(images, mean):
  return fit(tiny_config(), images, mean)


@pytest.fixture(scope='module')
def single_steps(images, mean):
  """The state before each step, and after the last, and the metrics of each, by calls of one."""
  config = tiny_config(steps_per_call=1)
  train = training.make_train_step(config, IMAGE_SIZE)
  state = training.init_state(config)
  states, metrics = [on_host(state)], []
  for _ in range(STEPS):
    state, found = train(state, images, mean, jax.random.key(config.seed))
    states.append(on_host(state))
    metrics.append({name: float(value) for name, value in found.items()})
  return states, metrics


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (path, one), other in zip(
    jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
  ):
    assert np.array(one).dtype == np.array(other).dtype
    assert np.array(one).tobytes() == np.array(other).tobytes(), jax.tree_util.keystr(path)


def moved(before, after):
  """Which leaves differ, by their names."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): bool(np.any(one != other))
    for (path, one), other in zip(
      jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    )
  }


# The loss, and all that is logged, assembled in float64.


@pytest.fixture(scope='module')
def outputs():
  """The logits, positions and neighbours' embeddings of a step's pairs, at each scale."""
  config = tiny_config()
  encoder, classifier = Encoder(architecture.from_config(config.encoder)), PositionClassifier()

  @jax.jit
  def network(params, images, mean, step):
    key = jax.random.fold_in(jax.random.key(0), step)
    found = {}
    for k in (32, 16):
      sample = sampling.make_sampler(k, 4, 'clip', config.train.augment)
      *patches, near, nearer = sample(jax.random.fold_in(key, k), images, mean)
      first, positions, second = patches[0], patches[2], patches[1]

      def embed(patches):
        return encoder.apply({'params': params['encoder']}, patches, method='embed_patches')

      variables = {'params': params['classifiers'][f'k{k}']}
      logits = classifier.apply(variables, embed(first), embed(second))
      found[f'k{k}'] = logits, positions, embed(near), embed(nearer)
    return found

  return network


def assemble(outputs, svdd_weight=0.1):
  metrics = {'loss': 0.0}
  for scale, (logits, positions, near, nearer) in jax.device_get(outputs).items():
    logits, near, nearer = (value.astype(np.float64) for value in (logits, near, nearer))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    metrics[f'position_loss/{scale}'] = -np.log(odds[np.arange(4), positions]).mean()
    metrics[f'position_accuracy/{scale}'] = (odds.argmax(axis=1) == positions).mean()
    metrics[f'neighbour_loss/{scale}'] = np.sqrt(((near - nearer) ** 2).sum(axis=1)).mean()
    metrics[f'embedding_spread/{scale}'] = np.sqrt(((near - near.mean(axis=0)) ** 2).mean())
    metrics['loss'] += metrics[f'position_loss/{scale}']
    metrics['loss'] += svdd_weight * metrics[f'neighbour_loss/{scale}']
  return metrics


def test_loss_and_metrics_agree_with_float64(single_steps, outputs, images, mean):
  states, metrics = single_steps
  for step, found in enumerate(metrics):
    expected = assemble(outputs(states[step].params, images, mean, step))
    assert found.keys() == expected.keys() | {'steps', 'finite_steps'}
    for name, value in expected.items():
      assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_metrics_of_an_untrained_network(single_steps):
  first = single_steps[1][0]
  for scale in SCALES:
    assert first[f'position_loss/{scale}'] == pytest.approx(math.log(8), abs=0.5)
    assert first[f'position_accuracy/{scale}'] in (0, 0.25, 0.5, 0.75, 1)  # of four pairs
    # Embeddings lie in a cube of side 2.
    assert 0 < first[f'neighbour_loss/{scale}'] < 2 * math.sqrt(8)
    assert 0 < first[f'embedding_spread/{scale}'] < 1


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


def test_a_run_repeats_bit_for_bit(whole_run, images, mean):
  assert_same_bits(fit(tiny_config(), images, mean)[0].state, whole_run[0].state)


def test_another_seed_is_another_run(whole_run, images, mean):
  other = fit(tiny_config(seed=1), images, mean)[0].state
  assert all(moved(other.params, whole_run[0].state.params).values())
  # From the same initial state too: other pairs are drawn.
  same_start = training.init_state(tiny_config(seed=0))
  drawn = fit(tiny_config(seed=1), images, mean, same_start)[0].state.params
  changed = moved(drawn, whole_run[0].state.params)
  assert {name for name, differs in changed.items() if not differs} == {
    f'classifiers/{scale}/last_kernel' for scale in SCALES
  }


def test_the_state_is_donated(images, mean):
  config = tiny_config()
  train = training.make_train_step(config, IMAGE_SIZE)
  before = training.init_state(config)
  after, _ = train(before, images, mean, jax.random.key(0))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_initial_parameters_depend_on_the_seed_alone():
  states = [on_host(training.init_state(tiny_config(seed=seed))) for seed in (0, 0, 1)]
  assert_same_bits(states[0], states[1])
  assert all(moved(states[0].params, states[2].params).values())
  encoder = on_host(training.init_encoder(tiny_config(seed=0)))
  assert_same_bits(states[0].params['encoder'], encoder)


# What is learned.


def test_all_but_the_last_classifier_layer_moves(single_steps):
  states, _ = single_steps
  changed = moved(states[0].params, states[1].params)
  assert len(changed) == 3 * 2 + 2 * 2 + 2 * 6
  assert {name for name, differs in changed.items() if not differs} == {
    f'classifiers/{scale}/last_kernel' for scale in SCALES
  }
  # Adam's first step is as long as the learning rate, along every axis.
  for before, after in zip(
    jax.tree.leaves(states[0].params), jax.tree.leaves(states[1].params), strict=True
  ):
    assert np.abs(after - before).max() < 1.01e-4


@pytest.fixture(scope='module')
def reckless_run(images, mean):
  """The states before and after the only finite step, and the error's message."""
  config = tiny_config(scales=(16,), learning_rate=1e30, train_last_layer=True)
  before, notes = training.init_state(config), Notes()
  kept = on_host(before)
  with pytest.raises(training.NonFiniteLossError) as raised:
    training.fit(config, before, images, mean, monitor=notes, saver=notes)
  [saved] = notes.saved
  return kept, saved, str(raised.value)


def test_the_last_layer_moves_where_it_is_trained(reckless_run):
  before, after, _ = reckless_run
  assert all(moved(before.params, after.params).values())


def test_positions_are_learned_where_content_tells_them():
  # Red grows downwards and green to the right, in every image.
  size = 72
  ramp = np.linspace(0, 255, size)
  layout = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), axis=-1)
  noise = np.random.default_rng(0).normal(0, 5, (3, size, size, 3))
  images = np.clip(layout + noise, 0, 255).astype(np.uint8)
  config = tiny_config(
    image_size=(size, size),
    steps=60,
    steps_per_call=20,
    batch_size=8,
    learning_rate=3e-3,
    svdd_weight=0.01,
    position_pairs='valid',
    mean='channel',
  )
  _, notes = fit(config, images, standardisation.training_mean(images, 'channel'))
  metrics = [metrics for _, metrics, _ in notes.records]
  for scale in SCALES:
    # By chance 1/8.
    assert metrics[-1][f'position_accuracy/{scale}'] > 0.7
    assert metrics[-1][f'position_loss/{scale}'] < 0.5 * metrics[0][f'position_loss/{scale}']


# Losses that are not finite.


def test_a_bad_pixel_stops_the_run_before_the_step_that_meets_it(
  single_steps, outputs, images, mean
):
  states, _ = single_steps
  bad = np.array(mean)
  bad[0, 0, 0] = np.nan  # most patches lie elsewhere
  found = [outputs(states[0].params, images, bad, step) for step in range(STEPS)]
  meets = [any(np.isnan(value).any() for value in jax.tree.leaves(step)) for step in found]
  good = meets.index(True)
  assert good > 0
  notes = Notes()
  with pytest.raises(training.NonFiniteLossError) as raised:
    training.fit(
      tiny_config(), training.init_state(tiny_config()), images, bad, monitor=notes, saver=notes
    )
  message = str(raised.value)
  assert f'at step {good + 1};' in message
  for what in ('learning_rate (0.0001)', 'svdd_weight (0.1)', 'clip_norm'):
    assert f'config.train.{what}' in message
  [saved] = notes.saved
  assert_same_bits(saved, states[good])
  assert notes.steps == [step for step in (2, 4) if step <= good]


def test_a_reckless_learning_rate_stops_the_run(reckless_run):
  _, saved, message = reckless_run
  assert re.search(r'at step 2; .*learning_rate \(1e\+30\)', message)
  assert saved.step == 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


def test_a_state_that_came_from_a_checkpoint_is_not_saved_again(single_steps, images, mean):
  state, notes = jax.device_put(single_steps[0][2]), Notes()
  bad = np.full_like(mean, np.nan)
  with pytest.raises(training.NonFiniteLossError, match='at step 3;'):
    training.fit(tiny_config(), state, images, bad, monitor=notes, saver=notes)
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


def test_steady_state(tmp_path, images, mean):
  """From the first step on nothing is compiled, and nothing is moved to the device.

  That holds for the whole loop, its records and checkpoints included: it compiles its program
  beforehand, so that not even the first call does. The control tests show that both would be seen.
  """
  config = tiny_config(every=2)
  state = training.init_state(config)
  with (
    Checkpoints(tmp_path, keep=9) as checkpoints,
    SteadyState(tmp_path, 0, STEPS, training.pairs_per_step(config)) as monitor,
  ):
    training.fit(config, state, images, mean, monitor=monitor, saver=checkpoints)
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


def test_steady_state_control_a_transfer_is_refused(monkeypatch, images, mean):
  """Where the step gets its images from the host, the guard inside `fit` stops it.

  Also on a CPU, where the transfer is a copy at most.
  """
  config = tiny_config()
  train = training.make_train_step(config, IMAGE_SIZE)
  program = train.lower(
    training.init_state(config), *jax.device_put((images, mean)), jax.random.key(0)
  ).compile()

  class FromHost:
    def lower(self, *_):
      return self

    def compile(self):
      return lambda state, _, mean, key: program(state, images, mean, key)

  monkeypatch.setattr(training, 'make_train_step', lambda *_: FromHost())
  with pytest.raises(jax.errors.JaxRuntimeError, match=TRANSFER):
    fit(config, images, mean)


def test_the_loop_saves_every_so_many_steps_and_at_the_end(images, mean, whole_run):
  outcome, notes = fit(tiny_config(every=3), images, mean)
  assert notes.starts == 1
  assert all(seconds > 0 for _, _, seconds in notes.records)
  assert [int(state.step) for state in notes.saved] == [4, 5]  # rounded up to whole calls
  assert_same_bits(notes.saved[-1], outcome.state)
  assert [int(state.step) for state in whole_run[1].saved] == [5]


def test_told_to_stop_it_saves_and_leaves(images, mean, single_steps):
  outcome, notes = fit(tiny_config(), images, mean, should_stop=lambda notes: notes.records)
  assert not outcome.finished
  assert [int(state.step) for state in notes.saved] == [2]
  assert_same_bits(outcome.state, single_steps[0][2])


def test_a_finished_run_takes_no_step(images, mean, whole_run):
  state = jax.device_put(whole_run[0].state)
  outcome, notes = fit(tiny_config(), images, mean, state)
  assert outcome.finished
  assert not notes.records
  assert not notes.saved
  assert_same_bits(outcome.state, whole_run[0].state)


# Settings that no run can use.


@pytest.mark.parametrize(
  ('section', 'changes', 'words'),
  [
    ('train', {'steps': 0}, r'config\.train\.steps=0: give at least 1'),
    ('train', {'steps_per_call': 0}, r'config\.train\.steps_per_call=0'),
    ('train', {'batch_size': -1}, r'config\.train\.batch_size=-1'),
    ('checkpoint', {'every': 0}, r'config\.checkpoint\.every=0'),
    ('checkpoint', {'keep': 0}, r'config\.checkpoint\.keep=0'),
    ('train', {'decay': 'linear'}, r"config\.train\.decay='linear'"),
    ('train', {'position_pairs': 'any'}, r"config\.train\.position_pairs='any'"),
    ('train', {'position_pairs': 'valid'}, r'40x48 pixels are too small .* 32-pixel'),
    ('data', {'image_size': (48, 32)}, r'48x32 pixels are too small'),
    ('encoder', {'depth': 1}, r'config\.encoder\.depth=1'),
    ('encoder', {'scales': (48,)}, r'config\.encoder\.scales=\(48,\)'),
  ],
  ids=lambda value: '' if isinstance(value, dict) else value,
)
def test_useless_settings_are_refused_by_name(section, changes, words):
  config = tiny_config()
  training.check(config)
  config[section].update(changes)
  with pytest.raises(UserError, match=words):
    training.check(config)


def test_pairs_of_a_step():
  assert training.pairs_per_step(tiny_config()) == 16  # 4 of two kinds at two scales
