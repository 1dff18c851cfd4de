"""Runs side by side, read from what train and eval leave in a workdir."""

import json

import numpy as np
import pytest

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops
from patch_svdd_jax.reporting import learning_curves


def make_run(workdir, pairs, seed, accuracy, checkpoints=True):
  """Four calls of ten steps that took 2, 2, 2 and 20 seconds."""
  config = default.get_config()
  config.seed, config.train.pairs = seed, pairs
  configuration.save(config, workdir)
  lines = [
    {
      'step': 10 * (call + 1),
      'position_accuracy/k64': accuracy + call / 100,
      'position_accuracy/k32': 0.2,
      'steps_per_s': 10 / seconds,
    }
    for call, seconds in enumerate((2, 2, 2, 20))
  ]
  lines.insert(2, {'step': 20, 'held_out/position_accuracy/k64': 0.9})
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (workdir / 'metrics.jsonl').write_text(text)
  if checkpoints:
    rows = [
      {'step': 20, 'figures': {'image_auroc': 0.7, 'pixel_auroc': 0.8}, 'marks': ['chosen']},
      {'step': 40, 'figures': {'image_auroc': 0.6, 'pixel_auroc': 0.9}, 'marks': ['final']},
    ]
    (workdir / 'eval').mkdir()
    (workdir / 'eval' / 'metrics.json').write_text(json.dumps({'checkpoints': rows}))
  return workdir


@pytest.fixture
def workdirs(tmp_path):
  return [
    make_run(tmp_path / f'{pairs}-{seed}', pairs, seed, accuracy)
    for pairs, accuracy in (('patches', 0.3), ('crops', 0.5))
    for seed in (0, 1)
  ]


def test_a_run_is_read(workdirs):
  run = learning_curves.read(workdirs[0])
  np.testing.assert_array_equal(run.steps, [10, 20, 30, 40])
  np.testing.assert_allclose(run.accuracies['k64'], [0.3, 0.31, 0.32, 0.33])
  # The slow call counts for nothing: the median is .2 s a step.
  assert run.seconds_per_step == pytest.approx(0.2)
  assert run.flops_per_step == flops.step_flops(configuration.load(workdirs[0]))
  assert sorted(run.figures) == [20, 40]
  assert run.chosen == 20


def test_seeds_are_one_group(workdirs):
  groups = learning_curves.group([learning_curves.read(workdir) for workdir in workdirs])
  assert list(groups) == ['pairs=patches', 'pairs=crops']
  assert [[run.config.seed for run in runs] for runs in groups.values()] == [[0, 1], [0, 1]]
  assert list(learning_curves.group([learning_curves.read(workdirs[0])])) == ['all']


def test_what_a_run_took_and_where_it_ended(workdirs):
  entries = learning_curves.summary(
    learning_curves.group([learning_curves.read(workdir) for workdir in workdirs])
  )
  assert len(entries) == 4
  last = entries[-1]
  assert (last['group'], last['seed'], last['steps']) == ('pairs=crops', 1, 40)
  assert last['seconds'] == pytest.approx(8)
  spent = flops.step_flops(configuration.load(workdirs[-1]))
  assert last['tflop'] == pytest.approx(40 * spent / 1e12)
  assert last['accuracy'] == pytest.approx({'k64': np.mean([0.5, 0.51, 0.52, 0.53]), 'k32': 0.2})
  assert last['final'] == {'image_auroc': 0.6, 'pixel_auroc': 0.9}
  assert last['chosen'] == {'image_auroc': 0.7, 'pixel_auroc': 0.8}


def test_a_run_that_was_not_evaluated_has_no_figures(tmp_path):
  run = learning_curves.read(make_run(tmp_path / 'run', 'crops', 0, 0.5, checkpoints=False))
  [entry] = learning_curves.summary(learning_curves.group([run]))
  assert entry['final'] is None
  assert entry['chosen'] is None


def test_smoothing_is_a_mean_over_the_last_calls():
  values = np.random.default_rng(0).uniform(size=35)
  expected = [values[max(0, last - 9) : last + 1].mean() for last in range(35)]
  np.testing.assert_allclose(learning_curves.smooth(values), expected)


def test_the_figure_shows_each_quantity_over_time_and_flops(workdirs):
  runs = [learning_curves.read(workdir) for workdir in workdirs]
  figure = learning_curves.draw(learning_curves.group(runs))
  grid = np.reshape(figure.axes, (4, 2))
  assert [axes.get_ylabel() for axes in grid[:, 0]] == [
    'positions right, k64',
    'positions right, k32',
    'image AUROC (test)',
    'pixel AUROC (test)',
  ]
  assert [axes.get_xlabel() for axes in grid[-1]] == ['minutes of training', 'TFLOP of the encoder']
  of_steps = 0.2 / 60, flops.step_flops(runs[0].config) / 1e12
  for column, of_step in zip(grid.T, of_steps, strict=True):
    for axes in column:
      assert [line.get_color() for line in axes.lines] == ['C0', 'C0', 'C1', 'C1']
    accuracy, _, image, pixel = (axes.lines[0] for axes in column)
    np.testing.assert_allclose(accuracy.get_xdata(), np.array([10, 20, 30, 40]) * of_step)
    np.testing.assert_allclose(
      accuracy.get_ydata(), learning_curves.smooth(runs[0].accuracies['k64'])
    )
    np.testing.assert_allclose(image.get_xdata(), np.array([20, 40]) * of_step)
    assert [list(line.get_ydata()) for line in (image, pixel)] == [[0.7, 0.6], [0.8, 0.9]]
  [legend] = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ['pairs=patches', 'pairs=crops']


def test_runs_that_were_not_evaluated_have_no_panels_of_aurocs(tmp_path):
  run = learning_curves.read(make_run(tmp_path, 'crops', 0, 0.5, checkpoints=False))
  assert len(learning_curves.draw(learning_curves.group([run])).axes) == 2 * 2


def test_a_workdir_without_training_is_refused(tmp_path):
  configuration.save(default.get_config(), tmp_path)
  with pytest.raises(UserError, match=r'no step was recorded in metrics\.jsonl: train there first'):
    learning_curves.read(tmp_path)
