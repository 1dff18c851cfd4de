"""Train states on disk: identity, retention, resumption, and what is refused."""

import resource

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.sharding import all_devices, replicate
from patch_svdd_jax.training import loop, train_state, train_step
from patch_svdd_jax.training.checkpoints import Checkpoints
from tests.support.runs import IMAGE_SIZE, IMAGES, MEAN, assert_same_bits

STEPS = 5


def tiny_config(seed=0, **encoder):
  config = default.get_config()
  config.seed = seed
  config.data.image_size = IMAGE_SIZE
  config.checkpoint.every = 2
  shape = {'receptive_field': 16, 'scales': (32, 16), 'depth': 3, 'width': 0.25, 'embed_dim': 8}
  config.encoder.update(shape | encoder)
  config.train.update(steps=STEPS, steps_per_call=2, batch_size=4, svdd_weight=0.1)
  return config


@pytest.fixture(scope='module')
def initial():
  """The state before the first step; no test may donate it."""
  return train_state.init_state(tiny_config())


@pytest.fixture(scope='module')
def state(initial):
  """A state of step 3 in which every number is another."""
  rng = np.random.default_rng(0)

  def draw(leaf):
    if leaf.dtype == np.int32:
      return jax.numpy.int32(3)
    return jax.numpy.asarray(rng.normal(size=leaf.shape).astype(np.float32))

  return jax.tree.map(draw, initial)


def at(state, step):
  return state._replace(step=jax.numpy.int32(step))


def steps_on_disk(workdir):
  return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def test_a_restored_state_is_the_saved_one_bit_for_bit(tmp_path, state, initial):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 3
    restored = checkpoints.restore(initial)
    assert_same_bits(
      checkpoints.restore_encoder(initial.params['encoder'], checkpoints.latest),
      state.params['encoder'],
    )
  assert_same_bits(restored, state)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_a_state_on_several_devices_is_saved_once(tmp_path, state, initial):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(replicate(state), {})
    restored = checkpoints.restore(initial)
  assert_same_bits(restored, state)
  # Not bound to devices: that would be another program.
  assert not any(leaf.committed for leaf in jax.tree.leaves(restored))


def test_numbers_that_are_not_ordinary_survive(tmp_path, state):
  odd = np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45, 3.4e38], np.float32)
  bias = {'bias': jax.numpy.asarray(odd)}
  strange = state._replace(params={'encoder': bias, 'classifiers': bias}, opt_state=bias)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(strange, {})
    assert_same_bits(checkpoints.restore(strange), strange)


def test_an_empty_workdir_has_no_state(tmp_path, initial):
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest is None
    assert checkpoints.restore(initial) is None
    with pytest.raises(UserError, match=r'no checkpoint in .*checkpoints: train first'):
      checkpoints.restore_encoder(initial.params['encoder'], checkpoints.latest)


@pytest.mark.parametrize('keep', [1, 2])
def test_the_newest_are_kept(tmp_path, state, keep):
  with Checkpoints(tmp_path, keep) as checkpoints:
    for step in (2, 4, 10, 12):
      checkpoints.save(at(state, step), {})
    assert checkpoints.latest == 12
  assert sorted(map(int, steps_on_disk(tmp_path))) == [2, 4, 10, 12][-keep:]


def test_a_folder_without_its_final_name_is_not_read(tmp_path, state, initial):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
  folder = tmp_path / 'checkpoints'
  (folder / '4.orbax-checkpoint-tmp' / 'encoder').mkdir(parents=True)
  with Checkpoints(tmp_path, 2) as checkpoints:
    assert checkpoints.latest == 3
    assert_same_bits(checkpoints.restore(initial), state)
    checkpoints.save(at(state, 4), {})
  assert steps_on_disk(tmp_path) == ['3', '4']


# Resumption.


class Silent:
  """A monitor that counts."""

  def __init__(self):
    self.calls = 0

  def start(self):
    pass

  def record(self, *_):
    self.calls += 1

  def record_validation(self, *_):
    pass


def train(config, workdir, calls=None):
  """Trains in a workdir, from where it is, for so many calls; returns what it saved last."""
  monitor = Silent()
  with Checkpoints(workdir, keep=9) as checkpoints:
    # Of another seed: whatever of it got through would show.
    like = train_state.init_state(tiny_config(seed=9))
    state = checkpoints.restore(like) or train_state.init_state(config)
    outcome = loop.fit(
      config,
      state,
      IMAGES,
      MEAN,
      loop.Callbacks(monitor, checkpoints, should_stop=lambda: monitor.calls == calls),
    )
    assert outcome.finished == (calls is None)
    return checkpoints.restore(like)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch):
  step = train_step.make_train_step(tiny_config(), len(IMAGES), all_devices())
  monkeypatch.setattr(train_step, 'make_train_step', lambda *_: step)  # traced once
  uninterrupted = train(tiny_config(), tmp_path / 'whole')
  stopped = train(tiny_config(), tmp_path / 'parts', calls=1)
  assert stopped.step == 2
  resumed = train(tiny_config(), tmp_path / 'parts')
  assert resumed.step == STEPS
  # The step, 22 parameters and their two moments, the counters of Adam and of its schedule.
  assert len(jax.tree.leaves(resumed)) == 1 + 3 * 22 + 2
  assert_same_bits(resumed, uninterrupted)
  assert steps_on_disk(tmp_path / 'whole') == steps_on_disk(tmp_path / 'parts') == ['2', '4', '5']


# What is refused, and what a disk can do.


def test_an_imported_encoder_cannot_be_trained_on(tmp_path, initial):
  encoder = initial.params['encoder']
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save_encoder(encoder)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 0
    assert_same_bits(checkpoints.restore_encoder(encoder, checkpoints.latest), encoder)
    with pytest.raises(UserError, match=r"/0 holds no 'trainer': it was imported") as raised:
      checkpoints.restore(initial)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  ('encoder', 'words'),
  [
    ({'embed_dim': 9}, r'level_16/conv_2/bias is \(8,\) there and \(9,\) in the config'),
    ({'scales': (16,)}, r'level_32/conv_0/bias is \(32,\) there and absent in the config'),
    ({'depth': 4}, r'level_16/conv_1/kernel is \(4, 4, 8, 32\) there and \(3, 3, 8, 32\) in'),
  ],
  ids=str,
)
def test_another_shape_is_refused_by_the_parameter(tmp_path, state, encoder, words):
  other = jax.eval_shape(lambda: train_state.init_state(tiny_config(**encoder)))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    with pytest.raises(UserError, match=rf'/3 is of another shape than the config: {words}'):
      checkpoints.restore(other)


def test_an_error_that_is_no_fault_of_the_checkpoint_keeps_its_traceback(
  tmp_path, state, initial, monkeypatch
):
  def restore(*_, **__):
    raise TypeError('no such argument')

  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    monkeypatch.setattr(ocp.CheckpointManager, 'restore', restore)
    with pytest.raises(TypeError, match='no such argument') as raised:
      checkpoints.restore(initial)
  assert raised.traceback[-1].name == 'restore'


def test_a_disk_that_fills_up_leaves_the_older_checkpoint_whole(tmp_path, state, initial, capfd):
  """A limit on the size of files stands in for the disk: the writer meets it in the same place."""
  kernel = jax.numpy.asarray(np.random.default_rng(0).normal(size=1_000_000))
  # A single array: of several writers only one would report, and the others die noisily. All others
  # together, which may share a file, stay below the limit.
  too_large = at(state, 4)._replace(params=state.params | {'encoder': {'kernel': kernel}})
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
      with pytest.raises(UserError, match=r'no space left on the disk of .*already there is whole'):
        checkpoints.save(too_large, {})
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert 'Traceback' not in capfd.readouterr().err
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 3
    assert_same_bits(checkpoints.restore(initial), state)
    checkpoints.save(at(state, 4), {})
    assert checkpoints.latest == 4
