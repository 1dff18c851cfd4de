"""What a page consists of. What is absent is not shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.html_report.charts import Chart

MISSED, FALSE_ALARM = 'missed', 'false alarm'


class Threshold(NamedTuple):
  """From which score on an image is called anomalous.

  Attributes:
    score: the threshold; alarm where score >= threshold.
    false_alarm_rate: the share of normal images that it is expected to call anomalous.
  """

  score: float
  false_alarm_rate: float


class Box(NamedTuple):
  """A rectangle in pixels of the item's image, right and bottom excluded."""

  left: float
  top: float
  right: float
  bottom: float


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
  """One image of the gallery, and what is known about it.

  Attributes:
    name: its path; any text.
    image: u8[H, W, 3], RGB.
    anomaly_map: f32[H, W].
    score: of the image.
    anomalous: the truth; None where it is unknown.
    defect: its type, 'good' for a normal image; '' where it is unknown.
    mask: bool[H, W], what is to be outlined; None where nothing is, or it is unknown.
    p_value: the share of normal images that score so high.
    alarm: the verdict; None where there is no threshold.
    boxes: where it looks anomalous.
  """

  name: str
  image: np.ndarray
  anomaly_map: np.ndarray
  score: float
  anomalous: bool | None = None
  defect: str = ''
  mask: np.ndarray | None = None
  p_value: float | None = None
  alarm: bool | None = None
  boxes: tuple[Box, ...] = ()

  @property
  def verdict(self) -> str:
    """'alarm' or 'pass'; '' where there is none."""
    return {None: '', True: 'alarm', False: 'pass'}[self.alarm]

  @property
  def error(self) -> str:
    """MISSED or FALSE_ALARM; '' where the verdict is right, or the truth or it is unknown."""
    if self.anomalous is None or self.alarm in (None, self.anomalous):
      return ''
    return MISSED if self.anomalous else FALSE_ALARM


class Compared(NamedTuple):
  """The same figure of something that was measured beside."""

  name: str
  value: float


@dataclasses.dataclass(frozen=True)
class Headline:
  """A figure that comes first.

  Attributes:
    metric: by which the page and its tests know it.
    title: what it is.
    value: in [0, 1].
    others: what it is compared with.
  """

  metric: str
  title: str
  value: float
  others: Sequence[Compared] = ()


class Row(NamedTuple):
  """The figures of one thing in a table; those of what it is compared with are shown fainter."""

  name: str
  figures: Mapping[str, float]
  compared: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """Metrics by name; NaN, where a metric needs both classes, is shown as a dash.

  Attributes:
    name: by which the page and its tests know it.
    title: what the table shows.
    heading: of the first column; those of the others are `metrics.TITLES`.
    rows: the figures.
    note: text below.
  """

  name: str
  title: str
  heading: str
  rows: Sequence[Row]
  note: str = ''


class Fact(NamedTuple):
  """A measured number: what, how much, and in what unit."""

  name: str
  title: str
  value: float
  unit: str = ''


class Setting(NamedTuple):
  """A key of the config, its value, and the default where that is another."""

  key: str
  value: str
  default: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
  """A page.

  Attributes:
    title: the data set, the folder, or what was scored.
    items: all images; the gallery shows `gallery.MOST_ITEMS` of them at most.
    map_name: which map is shown, and gives the scores.
    limits: (low, high) of the colour scale, see `report.colour_limits`.
    threshold: of the verdicts.
    warnings: what a reader should know first.
    headlines, tables, curves: what was measured.
    training: how training went.
    timing: how long scoring took.
    settings: the whole config.
  """

  title: str
  items: Sequence[Item]
  map_name: str
  limits: tuple[float, float]
  threshold: Threshold | None = None
  warnings: Sequence[str] = ()
  headlines: Sequence[Headline] = ()
  tables: Sequence[Table] = ()
  curves: Sequence[Chart] = ()
  training: Sequence[Chart] = ()
  timing: Sequence[Fact] = ()
  settings: Sequence[Setting] = ()
