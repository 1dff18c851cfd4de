"""When a collapse is reported: histories made by hand, and a real one."""

import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.training import loop, train_state
from patch_svdd_jax.training.collapse import CollapseError, CollapseWatch


def tiny_config(scales=(32, 16), **train):
  config = default.get_config()
  config.data.image_size = (40, 40)
  config.encoder.update(receptive_field=16, scales=scales, depth=3, width=0.25, embed_dim=8)
  settings = {'steps': 40, 'steps_per_call': 5, 'batch_size': 32, 'svdd_weight': 1000.0}
  config.train.update(settings | {'learning_rate': 0.01} | train)
  config.checkpoint.every = 1000
  return config


def calls(k32, k16):
  """Metrics of calls from (spread, accuracy) of each scale."""
  return [
    {
      'loss': 1.0,
      'embedding_spread/k32': one[0],
      'position_accuracy/k32': one[1],
      'embedding_spread/k16': other[0],
      'position_accuracy/k16': other[1],
    }
    for one, other in zip(k32, k16, strict=True)
  ]


def reports(k32, k16, past=0, config=None):
  """The steps at which something is said, and what."""
  metrics = calls(k32, k16)
  watch = CollapseWatch(config or tiny_config(), metrics[:past])
  said = {
    5 * (i + 1): watch(5 * (i + 1), of_call) for i, of_call in enumerate(metrics) if i >= past
  }
  return {step: text for step, text in said.items() if text}


# An untrained encoder's plateau, after which the spread grows and positions are learned.
HEALTHY = [(0.004, 0.12), (0.003, 0.14), (0.0035, 0.11), (0.01, 0.13), (0.2, 0.4), (0.1, 0.6)]
COLLAPSING = [(0.004, 0.12), (0.002, 0.13), (0.0003, 0.12), (0.00001, 0.12), (1e-7, 0.13), (0, 0)]


def test_a_plateau_is_no_collapse():
  assert reports(HEALTHY, HEALTHY) == {}
  # As measured: while it guesses, the spread rises and falls thirtyfold.
  restless = [
    (0.0006, 0.12),
    (0.01, 0.16),
    (0.0003, 0.12),
    (0.02, 0.11),
    (0.0006, 0.14),
    (0.1, 0.3),
  ]
  assert reports(restless, restless) == {}


def test_a_collapse_is_reported_once_by_scale_and_setting():
  found = reports(HEALTHY, COLLAPSING)
  assert list(found) == [15]
  for words in (
    'by step 15 ',
    'k16: spread 0.0003, was 0.004, 12.0% of positions right',
    'config.train.svdd_weight=0.001 (now 1000)',
    'config.train.learning_rate=0.001 (now 0.01)',
  ):
    assert words in found[15]
  assert 'k32' not in found[15]
  assert '\n' not in found[15]


def test_scales_that_collapse_one_after_another_are_reported_each():
  later = [(0.004, 0.12), *COLLAPSING[:-1]]
  found = reports(COLLAPSING, later)
  assert list(found) == [15, 20]
  assert ('k32' in found[15], 'k16' in found[15]) == (True, False)
  assert ('k32' in found[20], 'k16' in found[20]) == (False, True)


def test_scales_that_collapse_together_are_one_line():
  found = reports(COLLAPSING, COLLAPSING)
  assert list(found) == [15]
  assert 'k32: ' in found[15]
  assert 'k16: ' in found[15]


def test_a_small_spread_that_tells_positions_is_no_collapse():
  shrunk = [(0.2, 0.3), (0.1, 0.6), (0.004, 0.9), (0.0004, 0.9)]
  assert reports(shrunk, shrunk) == {}


def test_a_late_collapse_below_where_it_was_learned_is_reported():
  late = [(0.004, 0.12), (0.3, 0.8), (0.01, 0.13)]
  assert list(reports(late, HEALTHY[:3])) == [15]


def test_a_resumed_run_knows_how_it_began():
  # Alone, what follows looks like the plateau of an untrained encoder.
  assert list(reports(COLLAPSING, HEALTHY, past=3)) == [20]
  assert reports(COLLAPSING[3:4], HEALTHY[3:4]) == {}


def test_of_few_pairs_more_may_be_right_by_chance():
  few = tiny_config(steps_per_call=1, batch_size=8)
  lucky = [(0.004, 0.12), (0.00001, 0.375)]  # 3 of 8 pairs; 1 is expected, with a deviation of .94
  assert list(reports(lucky, lucky, config=few)) == [10]
  assert reports(lucky, lucky, config=tiny_config(steps_per_call=100)) == {}


class Notes:
  """A monitor and a saver that remember."""

  def __init__(self):
    self.metrics, self.warnings, self.saved = [], [], []

  def start(self):
    pass

  def record(self, step, metrics, seconds):
    self.metrics.append(metrics)

  def record_validation(self, step, statistics):
    pass

  def warn(self, text):
    self.warnings.append(text)

  def save(self, state, statistics):
    self.saved.append((int(state.step), dict(statistics)))


def test_a_real_collapse():
  """Of the neighbour loss alone, at a high rate, is met in the call in which it happens."""
  images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
  mean = images.mean(axis=(0, 1, 2), dtype=np.float32)[None, None]
  config, notes = tiny_config(scales=(16,), on_collapse='stop'), Notes()
  state, watch = train_state.init_state(config), CollapseWatch(config)
  with pytest.raises(CollapseError, match=r'the embeddings have collapsed .*; the state is saved'):
    loop.fit(config, state, images, mean, loop.Callbacks(notes, notes, watch=watch))
  spreads = np.array([call['embedding_spread/k16'] for call in notes.metrics])
  assert (spreads[:-1] > 0.1 * spreads[0]).all()
  assert spreads[-1] < 0.1 * spreads[0]
  assert notes.saved == [(5 * len(spreads), {})]
  assert notes.warnings == []
