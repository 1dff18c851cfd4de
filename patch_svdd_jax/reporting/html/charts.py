"""Charts of a page: drawn by matplotlib for light screens; the style sheet inverts them on dark."""

import base64
import functools
import warnings
from typing import Any

import matplotlib

from patch_svdd_jax.system import figures

COLOURS = ('#0b5cc0', '#b45309', '#0f766e', '#a21caf', '#4d7c0f', '#9f1239')
GREY, RED = '#71717a', '#b3171d'  # of what is beside the point, and of the threshold
TEXT = '#55555f'

_WIDTH, _HEIGHT, _ENTRY = 4.0, 2.9, 0.18  # inches; of most charts, and of each line of a legend

_STYLE: dict[Any, Any] = {
  'axes.axisbelow': True,
  'axes.edgecolor': TEXT,
  'axes.facecolor': 'none',
  'axes.grid': True,
  'axes.labelcolor': TEXT,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.facecolor': 'none',
  'font.sans-serif': ['DejaVu Sans', 'sans-serif'],
  'font.size': 11,
  'grid.color': '#d4d4d8',
  'legend.borderpad': 0,
  'legend.frameon': False,
  'legend.labelcolor': TEXT,
  'legend.labelspacing': 0.2,
  'path.simplify_threshold': 0.5,  # a line loses vertices that lie so near to it, in points
  'svg.fonttype': 'none',  # text stays text, which is smaller than its outlines
  'xtick.color': TEXT,
  'xtick.major.size': 0,
  'ytick.color': TEXT,
  'ytick.major.size': 0,
}


class Chart:
  """One plot.

  Attributes:
    name: by which the page and its tests know it.
    title: text above.
    axes: to plot on.
    caption: text below.
  """

  def __init__(self, name: str, title: str, x_title: str, y_title: str, height: float = _HEIGHT):
    from matplotlib.figure import Figure  # it draws without a screen

    self.name, self.title, self.caption, self._height = name, title, '', height
    with matplotlib.rc_context(_STYLE):
      self._figure = Figure(layout='constrained')
      self.axes = self._figure.subplots()
    self.axes.set(xlabel=x_title, ylabel=y_title)
    for axis in (self.axes.xaxis, self.axes.yaxis):
      axis.set_major_formatter('{x:,.7g}')

  @property
  def description(self) -> str:
    """Says what is plotted, for those who do not see it."""
    _, labels = self.axes.get_legend_handles_labels()
    over = f'{self.title}: {self.axes.get_ylabel()} over {self.axes.get_xlabel()}'
    return '; '.join([over, *labels])

  @functools.cached_property
  def uri(self) -> str:
    """Draws the chart, now complete, with its legend below: the data URI of an SVG."""
    handles, labels = self.axes.get_legend_handles_labels()
    self._figure.set_size_inches(_WIDTH, self._height + _ENTRY * len(labels))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
      warnings.filterwarnings('ignore', 'Glyph .* missing from font')  # of a type's name
      self._figure.legend(handles, labels, loc='outside lower left')
      svg = figures.encode(self._figure, 'svg')
    return f'data:image/svg+xml;base64,{base64.b64encode(svg).decode()}'
