"""Means and intervals against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from patch_svdd_jax.experiments import sweep_statistics


def figures(image, pixel):
  return {'image_auroc': image, 'pixel_auroc': pixel}


def member(seed, weight, rate=1e-3, **others):
  return {'seed': seed, 'svdd_weight': weight, 'learning_rate': rate, **others}


def measured(seed, weight, image, pixel, accuracy):
  maps = {'k32': figures(image, pixel), 'product': figures(image + 0.1, None)}
  accuracies = {'k32': accuracy, 'k8': 0.125}
  cost = {'step_seconds': 0.1 + seed, 'images_per_s': 9.0}
  return member(seed, weight, maps=maps, position_accuracy=accuracies, cost=cost)


GROUPS = {
  'depth=3': {
    'varied': {'config.encoder.depth': 3},
    'random_encoder': {'k32': figures(0.5, 0.6), 'product': figures(0.55, None)},
    'parameters': 1234,
    'macs': 5.6e7,
    'members': {
      'a': measured(0, 0.1, 0.7, 0.8, 0.3),
      'b': measured(1, 0.1, 0.8, 0.8, 0.4),
      'c': measured(2, 0.1, 0.9, 0.8, 0.5),
      'd': measured(0, 0.0, 0.6, 0.7, 0.2),
      'e': member(1, 0.0, lost_at=7),
      'f': member(0, 10.0, lost_at=1),
    },
  }
}


@pytest.mark.parametrize('count', [2, 5, 40])
def test_the_interval_is_students(count):
  values = np.random.default_rng(count).normal(0.9, 0.02, count)
  found = sweep_statistics.confidence_interval(values)
  low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
  middle, half = found['mean'], found['half_width']
  assert (middle - half, middle + half) == pytest.approx((low, high), rel=1e-12)
  assert found['seeds'] == count


def test_one_seed_has_no_interval_and_a_missing_metric_no_mean():
  one = {'mean': 0.5, 'half_width': None, 'seeds': 1}
  assert sweep_statistics.confidence_interval([0.5]) == one
  assert sweep_statistics.confidence_interval([0.5, None]) == one
  assert sweep_statistics.confidence_interval([None]) == one | {'mean': None, 'seeds': 0}


def test_accuracies_are_those_of_the_last_fifth():
  lines = [
    {'step': step, 'position_accuracy/k8': step / 100, 'position_accuracy/k16': 0.5, 'loss': 9.0}
    for step in range(10, 101, 10)
  ]
  found = sweep_statistics.late_means([*lines, {'step': 100, 'held_out/distance': 1.0}], 100)
  assert list(found) == ['k16', 'k8']
  assert found == pytest.approx({'k16': 0.5, 'k8': 0.95})


def test_seeds_of_a_setting_are_one_entry():
  none, some, lost = sweep_statistics.summarise(GROUPS)
  assert [each['svdd_weight'] for each in (none, some, lost)] == [0, 0.1, 10]
  assert [(each['seeds'], each['lost']) for each in (none, some, lost)] == [(1, 1), (3, 0), (0, 1)]
  # s = .1, t(2) = 4.302653 at .975.
  assert some['maps']['k32']['image_auroc'] == pytest.approx(
    {'mean': 0.8, 'half_width': 4.302653 * 0.1 / 3**0.5, 'seeds': 3}, rel=1e-6
  )
  assert some['position_accuracy']['k32']['mean'] == pytest.approx(0.4)
  assert none['maps']['k32']['image_auroc'] == {'mean': 0.6, 'half_width': None, 'seeds': 1}
  assert lost['maps'] == lost['position_accuracy'] == {}


def test_the_step_s_time_is_the_median():
  lines = [{'step': 1, 'steps_per_s': 2.0}, {'step': 2, 'steps_per_s': 4.0}, {'step': 2, 'a': 1.0}]
  lines.append({'step': 3, 'steps_per_s': 10.0})
  assert sweep_statistics.step_seconds(lines) == 0.25
