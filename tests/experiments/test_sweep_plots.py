"""What the pictures of a sweep show."""

import io

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.experiments import sweep_plots
from tests.experiments.test_sweep_statistics import GROUPS, figures, measured, member


@pytest.fixture
def drawn(monkeypatch):
  """The figures that were saved."""
  from matplotlib.figure import Figure

  kept, save = [], Figure.savefig
  monkeypatch.setattr(
    Figure, 'savefig', lambda self, *args, **kw: (kept.append(self), save(self, *args, **kw))
  )
  return kept


def test_the_curve_has_zero_apart_and_error_bars(drawn):
  members = GROUPS['depth=3']['members'] | {'g': measured(0, 1.0, 0.75, 0.8, 0.3)}
  groups = {'depth=3': GROUPS['depth=3'] | {'members': members}}
  encoded = sweep_plots.draw_weights(groups, 'png')
  assert Image.open(io.BytesIO(encoded)).size[0] > 1000
  image, _ = drawn[0].axes
  assert image.get_xscale() == 'symlog'
  assert [text.get_text() for text in image.get_xticklabels()] == ['0', '0.1', '1', '10']
  joined, apart = image.containers
  assert np.array(joined[0].get_xydata()) == pytest.approx(np.array([[0.1, 0.9], [1, 0.85]]))
  assert np.array(apart[0].get_xydata()) == pytest.approx(np.array([[0, 0.7]]))
  [bars] = joined[2]
  assert bars.get_segments()[0][:, 1] == pytest.approx([0.9 - 0.24841, 0.9 + 0.24841], abs=1e-4)
  # The untrained encoder's line.
  assert any(np.all(np.asarray(line.get_ydata()) == 0.55) for line in image.lines)


@pytest.mark.parametrize('weights', [[0.0], [0.5]], ids=str)
def test_a_curve_of_a_single_point(weights):
  group = GROUPS['depth=3'] | {'members': {'a': measured(0, weights[0], 0.7, 0.8, 0.3)}}
  assert sweep_plots.draw_weights({'depth=3': group}, 'png').startswith(b'\x89PNG')


def test_groups_stand_beside_each_other(drawn):
  other = {
    'random_encoder': {'k8': figures(0.2, 0.3)},
    'members': {'a': member(0, 0.1, maps={'k8': figures(0.4, 0.5)}, position_accuracy={}, cost={})},
  }
  failed = {'members': {}, 'error': 'no bank fits'}
  groups = GROUPS | {'depth=4': other, 'depth=99': failed}
  assert sweep_plots.draw_groups(groups, 'png').startswith(b'\x89PNG')
  image, pixel = drawn[0].axes
  assert [text.get_text() for text in image.get_yticklabels()] == ['depth=3', 'depth=4']
  by_weight = {each.get_label(): each[0].get_xydata() for each in image.containers}
  np.testing.assert_allclose(by_weight['lambda 0.1, rate 0.001'][:, 0], [0.9, 0.4])
  # A metric that needs both classes is missing where there are not.
  [points] = [each for each in pixel.containers if each.get_label().startswith('lambda 0.1')]
  np.testing.assert_allclose(points[0].get_xydata()[:, 0], [0.5])
