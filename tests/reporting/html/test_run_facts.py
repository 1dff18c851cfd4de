"""Training curves, timing and settings."""

import numpy as np

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default, laptop
from patch_svdd_jax.reporting import learning_curves
from patch_svdd_jax.reporting.html import run_facts

HISTORY = [
  {'step': 10, 'loss': 4.0, 'position_accuracy/k32': 0.1, 'steps_per_s': 7.0},
  {'step': 20, 'loss': 2.0, 'position_accuracy/k32': 0.3, 'steps_per_s': 7.0},
  {'step': 20, 'held_out/loss': 3.0, 'held_out/position_accuracy/k32': 0.2, 'held_out/radius': 1.0},
  {'step': 30, 'loss': float('nan'), 'position_accuracy/k32': float('inf'), 'steps_per_s': 7.0},
]


def test_training_curves_and_held_out_points():
  loss, accuracy = run_facts.training_charts(HISTORY)
  assert (loss.name, accuracy.name) == ('training-loss', 'training-position_accuracy')
  line, held_out = loss.axes.lines
  assert [each.get_label() for each in (line, held_out)] == ['training', 'held out']
  assert line.get_xydata().tolist() == [[10, 4], [20, 2]]
  assert held_out.get_xydata().tolist() == [[20, 3]]
  assert (line.get_marker(), held_out.get_marker()) == ('None', 'o')
  assert line.get_color() == held_out.get_color()
  assert (loss.axes.get_xlabel(), loss.axes.get_ylabel()) == ('step', 'sum of weighted losses')
  k32, of_held_out, chance = accuracy.axes.lines
  labels = [each.get_label() for each in (k32, of_held_out, chance)]
  assert labels == ['k32', 'k32, held out', 'chance']
  assert list(chance.get_ydata()) == [1 / 8, 1 / 8]
  low, high = accuracy.axes.get_ylim()
  assert low < 0.1
  assert high > 0.3
  assert accuracy.caption == ''


def test_lines_of_many_calls_are_smoothed():
  losses = np.random.default_rng(0).random(run_facts.MANY_CALLS)
  history = [
    {'step': step, 'loss': loss, 'held_out/loss': loss} for step, loss in enumerate(losses)
  ]
  [chart] = run_facts.training_charts(history)
  line, held_out = chart.axes.lines
  np.testing.assert_array_equal(line.get_ydata(), learning_curves.smooth(losses))
  np.testing.assert_array_equal(held_out.get_ydata(), losses)
  assert chart.caption == 'Solid lines: means over the last 10 calls.'


def test_a_run_without_training_has_no_curves():
  assert run_facts.training_charts([]) == []


def test_settings_name_the_default_of_those_that_differ():
  config = laptop.get_config('grass')
  settings = run_facts.settings(config)
  assert [setting.key for setting in settings] == [key for key, _ in configuration.flatten(config)]
  changed = {each.key: (each.value, each.default) for each in settings if each.default is not None}
  lines = configuration.differences(default.get_config(), config)
  assert [f'{key}: {before} -> {now}' for key, (now, before) in changed.items()] == lines
  assert changed['config.encoder.depth'] == ('5', '8')


def test_timing_in_words():
  measured = {'metrics_seconds': 0.5, 'images_per_s': 4.0}
  facts = run_facts.timing(measured, {'search': 0.375, 'decode': 0.125})
  assert [(fact.title, fact.value, fact.unit) for fact in facts] == [
    ('reading of what was prepared', 125.0, 'ms an image'),
    ('search of the memory banks', 375.0, 'ms an image'),
    ('all of these', 2.0, 'images/s'),
    ('metrics', 0.5, 's'),
  ]
  assert [fact.name for fact in run_facts.timing(measured, {})] == ['metrics_seconds']
