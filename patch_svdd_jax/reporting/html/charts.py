"""Charts of a page: what they show, and where it lies in an SVG of one size.

The template draws them, so that style sheets give lines and text the colours of the page.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

# The drawing and the room around the plot for ticks and titles, in units of the drawing.
WIDTH, HEIGHT = 320, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 8, 42

# The page has so many colours for lines, and one for what is beside the point.
COLOURS, GREY = 6, 6

# A line loses vertices that lie this near to it (units), and more where it has more than so many.
TOLERANCE, MOST_VERTICES = 0.25, 500


class Range(NamedTuple):
  """What an axis spans."""

  low: float
  high: float


class Tick(NamedTuple):
  """A labelled place on an axis, in units of the drawing."""

  place: float
  label: str


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
  """A line through points; where one is not finite, it is interrupted.

  Attributes:
    label: for the legend.
    x, y: f[P].
    colour: the number of a colour of the page.
    dashed: whether it is compared with, rather than shown.
    dotted: whether every point has a dot: they are few, or only one.
  """

  label: str
  x: np.ndarray
  y: np.ndarray
  colour: int = 0
  dashed: bool = False
  dotted: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Bars:
  """A histogram.

  Attributes:
    label: for the legend.
    edges: f64[B + 1], rising.
    counts: i64[B].
    colour: the number of a colour of the page.
  """

  label: str
  edges: np.ndarray
  counts: np.ndarray
  colour: int = 0


class Mark(NamedTuple):
  """A point of its own."""

  label: str
  x: float
  y: float


class Rule(NamedTuple):
  """A straight line across the plot at a value of the x-axis, or else of the y-axis."""

  label: str
  value: float
  vertical: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
  """One plot.

  Attributes:
    name: by which the page and its tests know it.
    title, x_title, y_title: texts.
    x_limits, y_limits: what the axes span.
    lines, bars, marks, rules: what is plotted.
    caption: text below.
  """

  name: str
  title: str
  x_title: str
  y_title: str
  x_limits: Range
  y_limits: Range
  lines: Sequence[Line] = ()
  bars: Sequence[Bars] = ()
  marks: Sequence[Mark] = ()
  rules: Sequence[Rule] = ()
  caption: str = ''

  def across(self, value: np.ndarray | float) -> np.ndarray:
    """The place of a value of the x-axis."""
    return LEFT + _share(value, self.x_limits) * (WIDTH - LEFT - RIGHT)

  def down(self, value: np.ndarray | float) -> np.ndarray:
    """The place of a value of the y-axis."""
    return HEIGHT - BOTTOM - _share(value, self.y_limits) * (HEIGHT - TOP - BOTTOM)

  @property
  def x_ticks(self) -> list[Tick]:
    """Round values of the x-axis."""
    return [Tick(float(self.across(value)), _label(value)) for value in _round(self.x_limits)]

  @property
  def y_ticks(self) -> list[Tick]:
    """Round values of the y-axis."""
    return [Tick(float(self.down(value)), _label(value)) for value in _round(self.y_limits)]

  def path(self, line: Line) -> str:
    """A line as the data of an SVG path."""
    points = self._places(line)
    finite = np.isfinite(points).all(1)
    pieces = np.split(points, np.flatnonzero(np.diff(finite)) + 1)
    return ''.join(_path(thin(piece)) for piece in pieces if np.isfinite(piece).all())

  def dots(self, line: Line) -> str:
    """The points of a line as strokes of no length, which round ends make dots."""
    points = self._places(line)
    points = points[np.isfinite(points).all(1)]
    return ''.join(f'M{x:.1f} {y:.1f}h0' for x, y in points)

  def outline(self, bars: Bars) -> str:
    """A histogram as the data of an SVG path, closed along the axis."""
    x = self.across(np.repeat(bars.edges, 2))
    y = self.down(np.concatenate([[0], np.repeat(bars.counts, 2), [0]]))
    return _path(np.stack([x, y], axis=1)) + 'Z'

  def _places(self, line: Line) -> np.ndarray:
    return np.stack([self.across(line.x), self.down(line.y)], axis=1)


def around(values: np.ndarray) -> Range:
  """Range that hold all finite values, with some room; 0 to 1 where there is none."""
  finite = values[np.isfinite(values)]
  if not finite.size:
    return Range(0.0, 1.0)
  low, high = float(finite.min()), float(finite.max())
  room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
  return Range(low - room, high + room)


def histograms(groups: Mapping[str, np.ndarray]) -> list[Bars]:
  """Histograms of groups of scores by name, over the same bins; infinite scores are left out."""
  groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
  values = np.concatenate([np.zeros(0), *groups.values()])
  bins = len(np.histogram_bin_edges(values, 'auto')) - 1
  edges = np.histogram_bin_edges(values, min(max(bins, 10), 40))
  return [
    Bars(name, edges, np.histogram(members, edges)[0], colour)
    for colour, (name, members) in enumerate(groups.items())
  ]


def thin(points: np.ndarray) -> np.ndarray:
  """Fewer of the points f64[P, 2] of a line: those left out lie within TOLERANCE of what is kept.

  The tolerance is doubled until no more than MOST_VERTICES are left.
  """
  from skimage.measure import approximate_polygon  # it takes a second to import

  points = np.round(points, 1)
  points = points[np.append(True, (np.diff(points, axis=0) != 0).any(1))]
  tolerance = TOLERANCE
  kept = approximate_polygon(points, tolerance)
  while len(kept) > MOST_VERTICES:
    tolerance *= 2
    kept = approximate_polygon(points, tolerance)
  return kept


def _share(value: np.ndarray | float, limits: Range) -> np.ndarray:
  return (np.asarray(value, np.float64) - limits.low) / (limits.high - limits.low)


def _round(limits: Range) -> list[float]:
  """Round values between the limits."""
  values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(*limits)
  room = 1e-6 * (limits.high - limits.low)
  return [float(value) for value in values if limits.low - room <= value <= limits.high + room]


def _label(value: float) -> str:
  return f'{value:,.4g}' if abs(value) < 1e4 else f'{value:,.7g}'


def _path(points: np.ndarray) -> str:
  return 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in points)
