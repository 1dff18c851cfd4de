"""What the pictures of a sweep show."""

import numpy as np
import pytest

from patch_svdd_jax.experiments import sweep_plots
from patch_svdd_jax.system.figures import encode
from tests.experiments.test_sweep_statistics import GROUPS, figures, measured, member


def shown(panel):
  """The points of each label, and the ends of their error bars."""
  return {
    bars.get_label(): (bars[0].get_xydata(), [s for each in bars[2] for s in each.get_segments()])
    for bars in panel.containers
  }


def test_the_curve_has_zero_apart_and_error_bars():
  members = GROUPS['depth=3']['members'] | {'g': measured(0, 1.0, 0.75, 0.8, 0.3)}
  figure = sweep_plots.draw_weights({'depth=3': GROUPS['depth=3'] | {'members': members}})
  image, pixel = figure.axes
  assert image.get_xscale() == 'symlog'
  assert [text.get_text() for text in image.get_xticklabels()] == ['0', '0.1', '1', '10']
  (points, bars), (apart, _) = shown(image).values()
  np.testing.assert_allclose(points, [[0.1, 0.9], [1, 0.85]])
  np.testing.assert_allclose(apart, [[0, 0.7]])
  np.testing.assert_allclose(bars[0], [[0.1, 0.9 - 0.24841], [0.1, 0.9 + 0.24841]], rtol=1e-4)
  # The untrained encoder's line; the product has no pixel AUROC.
  assert [0.55, 0.55] in [list(line.get_ydata()) for line in image.lines]
  assert not shown(pixel)
  [legend] = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ['depth=3, rate 0.001, product']


@pytest.mark.parametrize('weight', [0.0, 0.5])
def test_a_curve_of_a_single_point(weight):
  group = GROUPS['depth=3'] | {'members': {'a': measured(0, weight, 0.7, 0.8, 0.3)}}
  figure = sweep_plots.draw_weights({'depth=3': group})
  [(points, _)] = shown(figure.axes[0]).values()
  np.testing.assert_allclose(points, [[weight, 0.8]])
  encode(figure, 'png')  # whose axis is logarithmic, or not


def test_groups_stand_beside_each_other():
  other = {
    'random_encoder': {'k8': figures(0.2, 0.3)},
    'members': {'a': member(0, 0.1, maps={'k8': figures(0.4, 0.5)}, position_accuracy={}, cost={})},
  }
  failed = {'members': {}, 'error': 'no bank fits'}
  figure = sweep_plots.draw_groups(GROUPS | {'depth=4': other, 'depth=99': failed})
  image, pixel = map(shown, figure.axes)
  labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
  assert labels == ['depth=3', 'depth=4']
  np.testing.assert_allclose(image['lambda 0.1, rate 0.001'][0][:, 0], [0.9, 0.4])
  # A metric that needs both classes is missing where there are not.
  np.testing.assert_allclose(pixel['lambda 0.1, rate 0.001'][0][:, 0], [0.5])
  dashed = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == '--']
  assert dashed == [0.55, 0.2]


def test_without_figures_pictures_are_empty():
  for draw in (sweep_plots.draw_weights, sweep_plots.draw_groups):
    figure = draw({'depth=99': {'error': 'no bank fits'}})
    assert not any(axes.containers for axes in figure.axes)
    encode(figure, 'png')
