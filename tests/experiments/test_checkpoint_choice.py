"""Which checkpoints survive and which is chosen, on disk and in the loop."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.training import loop, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints

IMAGE_SIZE = (40, 48)


def tiny_config(**train):
  config = default.get_config()
  config.data.image_size = IMAGE_SIZE
  config.checkpoint.every = 4
  config.encoder.update(receptive_field=16, scales=(16,), depth=3, width=0.25, embed_dim=8)
  config.train.update({'steps': 13, 'steps_per_call': 2, 'batch_size': 4} | train)
  return config


@pytest.fixture(scope='module')
def initial():
  """The state before the first step; no test may donate it."""
  return train_state.init_state(tiny_config())


def at(initial, step):
  """A state of that step whose encoder says so."""
  encoder = jax.tree.map(lambda leaf: 0 * leaf + step, initial.params['encoder'])
  return initial._replace(step=jax.numpy.int32(step), params=initial.params | {'encoder': encoder})


def known(accuracy, relative=0.5):
  return {'position_accuracy/k16': accuracy, 'relative_99/k16': relative}


def step_of(checkpoints, initial, step):
  """What the restored encoder says."""
  [value] = {
    float(value)
    for leaf in jax.tree.leaves(checkpoints.restore_encoder(initial.params['encoder'], step))
    for value in np.ravel(leaf)
  }
  return value


SAVED = {2: 0.3, 4: 0.9, 6: 0.5, 8: 0.9, 10: 0.4, 12: 0.6}


@pytest.mark.parametrize(
  ('keep', 'kept'), [(1, [8, 12]), (2, [8, 10, 12]), (3, [8, 10, 12]), (4, [6, 8, 10, 12])]
)
def test_the_newest_and_the_best_are_kept(tmp_path, initial, keep, kept):
  with Checkpoints(tmp_path, keep) as checkpoints:
    for step, accuracy in SAVED.items():
      checkpoints.save(at(initial, step), known(accuracy))
      # Of equal ones the newest.
      best = max((accuracy, earlier) for earlier, accuracy in SAVED.items() if earlier <= step)[1]
      assert checkpoints.chosen == best
  with Checkpoints(tmp_path, keep) as checkpoints:
    assert checkpoints.steps == kept
    assert (checkpoints.latest, checkpoints.chosen) == (12, 8)
    assert checkpoints.statistics == {step: known(SAVED[step]) for step in kept}
    assert step_of(checkpoints, initial, 8) == 8
    assert step_of(checkpoints, initial, 12) == 12
  assert sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir()) == kept


def test_the_best_survives_being_opened_with_another_keep(tmp_path, initial):
  with Checkpoints(tmp_path, 3) as checkpoints:
    for step in (2, 4, 6):
      checkpoints.save(at(initial, step), known(SAVED[step]))
  with Checkpoints(tmp_path, 1) as checkpoints:
    assert checkpoints.chosen == 4
    checkpoints.save(at(initial, 10), known(SAVED[10]))
    assert checkpoints.steps == [4, 10]
    checkpoints.save(at(initial, 12), known(0.95))
    assert checkpoints.steps == [12]
    assert checkpoints.chosen == 12


def test_without_statistics_the_newest_is_chosen(tmp_path, initial):
  with Checkpoints(tmp_path, 2) as checkpoints:
    assert checkpoints.chosen is None
    assert checkpoints.steps == []
    for step in (2, 4, 6):
      checkpoints.save(at(initial, step), {})
      assert checkpoints.chosen == checkpoints.latest == step
    assert checkpoints.statistics == {4: None, 6: None}
  with Checkpoints(tmp_path, 2) as checkpoints:
    assert checkpoints.chosen == 6


def test_one_without_statistics_is_neither_chosen_nor_kept_for_ever(tmp_path, initial):
  with Checkpoints(tmp_path, 1) as checkpoints:
    checkpoints.save(at(initial, 2), known(0.2))
    checkpoints.save(at(initial, 3), {})
    assert (checkpoints.steps, checkpoints.chosen) == ([2, 3], 2)
    checkpoints.save(at(initial, 4), known(0.1))
    assert (checkpoints.steps, checkpoints.chosen) == ([2, 4], 2)


def test_a_collapsed_one_is_chosen_only_where_all_are(tmp_path, initial):
  with Checkpoints(tmp_path, 9) as checkpoints:
    checkpoints.save(at(initial, 2), known(0.9, relative=float('inf')))
    assert checkpoints.chosen == 2
    checkpoints.save(at(initial, 4), known(0.1))
    checkpoints.save(at(initial, 6), known(0.9, relative=float('nan')))
  with Checkpoints(tmp_path, 9) as checkpoints:
    assert checkpoints.chosen == 4


# The loop.


class Notes:
  """A monitor that remembers the statistics it was told, and asks to stop after so many calls."""

  def __init__(self, calls=None):
    self.calls, self.recorded, self.validated = calls, [], {}

  def start(self):
    pass

  def record(self, step, metrics, seconds):
    self.recorded.append(step)

  def record_validation(self, step, statistics):
    assert self.recorded[-1] == step
    self.validated[step] = statistics

  def warn(self, text):
    raise AssertionError(text)

  def should_stop(self):
    return len(self.recorded) == self.calls


def first_number(params):
  """Some function of the encoder, between 0 and 1."""
  return abs(float(jax.device_get(jax.tree.leaves(params['encoder'])[0]).ravel()[0])) % 1


def run(workdir, calls=None, keep=9):
  """Trains in a workdir from where it is, for so many calls; the notes, and what is on disk."""
  images = np.random.default_rng(0).integers(0, 256, (3, *IMAGE_SIZE, 3), dtype=np.uint8)
  mean = images.mean(axis=(0, 1, 2), dtype=np.float32)[None, None]
  config, notes = tiny_config(learning_rate=0.1), Notes(calls)
  initial = train_state.init_state(config)
  with Checkpoints(workdir, keep) as checkpoints:
    outcome = loop.fit(
      config,
      checkpoints.restore(initial) or initial,
      images,
      mean,
      loop.Callbacks(
        notes,
        checkpoints,
        validate=lambda params: known(first_number(params)),
        should_stop=notes.should_stop,
      ),
    )
    assert outcome.finished == (calls is None)
    return notes, checkpoints.statistics, checkpoints.chosen


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, *run(workdir)


def test_every_so_many_steps_and_at_the_end_there_are_statistics(whole):
  _, notes, statistics, chosen = whole
  assert notes.recorded == [2, 4, 6, 8, 10, 12, 13]
  assert list(notes.validated) == list(statistics) == [4, 8, 12, 13]
  assert statistics == notes.validated
  assert len({found['position_accuracy/k16'] for found in statistics.values()}) == 4
  assert chosen == max(statistics, key=lambda step: statistics[step]['position_accuracy/k16'])


def test_a_stopped_and_resumed_run_chooses_the_same(tmp_path, whole):
  _, _, statistics, chosen = whole
  # Two steps after one that was saved, and at the very one.
  notes, on_disk, _ = run(tmp_path, calls=3)
  assert list(notes.validated) == [4]
  assert on_disk == {4: statistics[4], 6: None}
  notes, on_disk, _ = run(tmp_path, calls=1)
  assert list(notes.validated) == [8]
  notes, on_disk, found = run(tmp_path)
  assert list(notes.validated) == [12, 13]
  assert on_disk == statistics | {6: None}
  assert found == chosen


def test_a_finished_run_is_not_validated_again(whole):
  workdir, _, statistics, _ = whole
  notes, again, _ = run(workdir)
  assert again == statistics
  assert not notes.recorded
  assert not notes.validated
