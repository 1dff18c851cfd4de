"""Charts: where things lie in them, and that thinned lines look as they did."""

import re

import numpy as np
import pytest
from skimage.measure import points_in_poly

from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Bars, Chart, Line, Range


def make_chart(**parts):
  return Chart('name', 'title', 'x', 'y', Range(0, 10), Range(-1, 1), **parts)


def numbers(path):
  return np.array([float(text) for text in re.findall(r'-?[\d.]+', path)]).reshape(-1, 2)


def test_the_corners_of_the_plot():
  path = make_chart().path(Line('a', np.array([0, 10]), np.array([-1, 1])))
  right, bottom = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
  assert path == f'M{charts.LEFT:.1f} {bottom:.1f}L{right:.1f} {charts.TOP:.1f}'


def test_ticks_are_round_values_within_the_limits():
  chart = make_chart()
  assert [tick.label for tick in chart.x_ticks] == ['0', '2', '4', '6', '8', '10']
  assert [tick.label for tick in chart.y_ticks] == ['-1', '-0.5', '0', '0.5', '1']
  assert chart.x_ticks[1].place == float(chart.across(2))
  assert chart.y_ticks[0].place == float(chart.down(-1))


def test_large_steps_have_all_their_digits():
  chart = Chart('', '', '', '', Range(0, 25_000), Range(0, 1))
  assert chart.x_ticks[-1].label == '25,000'


def test_a_line_is_interrupted_where_it_is_not_finite():
  y = np.array([0, 0.5, np.nan, np.inf, 0.5, 0, np.nan])
  chart = make_chart()
  path = chart.path(Line('a', np.arange(7), y))
  assert path.count('M') == 2
  np.testing.assert_allclose(numbers(path)[:, 0], chart.across(np.array([0, 1, 4, 5])), atol=0.05)
  assert chart.path(Line('a', np.arange(2), np.array([np.nan, np.nan]))) == ''
  assert chart.dots(Line('a', np.array([0, 10]), np.array([np.nan, 1]))) == (
    f'M{charts.WIDTH - charts.RIGHT:.1f} {charts.TOP:.1f}h0'
  )


def distance(points, vertices):
  """The largest distance of points from the line through the vertices."""
  start, way = vertices[:-1], np.diff(vertices, axis=0)
  along = np.einsum('psd,sd->ps', points[:, None] - start, way) / (way**2).sum(-1)
  feet = start + np.clip(along, 0, 1)[..., None] * way
  return np.linalg.norm(points[:, None] - feet, axis=-1).min(1).max()


def test_a_thinned_line_looks_the_same():
  rng = np.random.default_rng(0)
  points = np.stack([np.sort(rng.random(3000)) ** 3 * 300, np.sort(rng.random(3000)) * 200], axis=1)
  kept = charts.thin(points)
  assert len(kept) < 200
  assert distance(points, kept) < charts.TOLERANCE + 0.1
  np.testing.assert_allclose(kept[[0, -1]], points[[0, -1]], atol=0.05)


def test_no_line_has_too_many_vertices():
  points = np.stack([np.linspace(0, 300, 3000), np.random.default_rng(0).random(3000) * 200], 1)
  assert 100 < len(charts.thin(points)) <= charts.MOST_VERTICES
  assert len(charts.thin(points[:1])) == 1


def test_a_histogram_encloses_its_bars_and_nothing_else():
  bars = Bars('a', np.array([0, 4, 8, 10.0]), np.array([1, 0, 0.5]))
  chart = make_chart()
  outline = numbers(chart.outline(bars))
  x, y = np.array([2, 2, 6, 9, 9]), np.array([0.9, 1.1, 0.1, 0.4, 0.6])
  inside = points_in_poly(np.stack([chart.across(x), chart.down(y)], axis=1), outline)
  assert inside.tolist() == [True, False, False, True, False]


def test_histograms_share_their_bins_and_count_all_finite_scores():
  rng = np.random.default_rng(0)
  groups = {'normal': rng.random(50), 'anomalous': np.append(rng.random(30) + 1, [np.inf, -np.inf])}
  normal, anomalous = charts.histograms(groups)
  np.testing.assert_array_equal(normal.edges, anomalous.edges)
  assert (normal.edges[0], normal.edges[-1]) == (
    groups['normal'].min(),
    groups['anomalous'][:30].max(),
  )
  assert (normal.counts.sum(), anomalous.counts.sum()) == (50, 30)
  assert (normal.label, normal.colour, anomalous.colour) == ('normal', 0, 1)


@pytest.mark.parametrize('values', [[], [0.5], [0.5, 0.5], [np.inf]])
def test_histograms_and_limits_of_hardly_any_values(values):
  [bars] = charts.histograms({'images': np.array(values, float)})
  assert bars.counts.sum() == np.isfinite(values).sum()
  low, high = charts.around(np.array(values, float))
  assert low < high
  assert all(low < value < high for value in values if np.isfinite(value))
