"""What a page consists of. What is absent is not shown."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data.report import DataReport
from patch_svdd_jax.detection.calibration import Threshold
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.reporting.html.charts import Chart
from patch_svdd_jax.reporting.html.pictures import View
from patch_svdd_jax.reporting.threshold_table import ThresholdSection

MISSED, FALSE_ALARM = 'missed', 'false alarm'
NORMAL, ANOMALOUS, UNKNOWN = 'normal', 'anomalous', 'images'


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Item(Prediction):
  """One image of the gallery: what is found of it, its pictures, and the truth.

  Attributes:
    views: makes its pictures, if it is shown.
    anomalous: the truth; None where it is unknown.
    defect: its type, 'good' for a normal image; '' where it is unknown.
  """

  views: Callable[[], Sequence[View]]
  anomalous: bool | None = None
  defect: str = ''

  @property
  def error(self) -> str:
    """MISSED or FALSE_ALARM; '' where the verdict is right, or the truth or it is unknown."""
    if self.anomalous is None or self.alarm in (None, self.anomalous):
      return ''
    return MISSED if self.anomalous else FALSE_ALARM


class Compared(NamedTuple):
  """A figure of something that was measured beside, such as the untrained encoder."""

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


class FiguresRow(NamedTuple):
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
  rows: Sequence[FiguresRow]
  note: str = ''


class Fact(NamedTuple):
  """A measured number: what, how much, and in what unit."""

  name: str
  title: str
  value: float
  unit: str = ''


class Worst(NamedTuple):
  """An image, and the low figure that it has."""

  item: Item
  value: float


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
  """Distribution of a figure over images.

  Attributes:
    chart: each image.
    facts: mean, standard deviation and quartiles.
    images: how many have the figure.
    worst: those of the lowest figures, the lowest first.
    note: what the figure is.
  """

  chart: Chart
  facts: Sequence[Fact]
  images: int
  worst: Sequence[Worst]
  note: str


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
    items: images, of which the gallery shows `gallery.MOST_ITEMS` at most.
    scores: f[N] of all images there are, by what they are: NORMAL, ANOMALOUS, or UNKNOWN.
    map_name: which map is shown, and gives the scores.
    limits: (low, high) of the colour scale.
    threshold: what scores above it are alarms; None where there are no verdicts.
    warnings: what a reader should know first.
    synthetic: figures on synthetic anomalies of held-out images.
    headlines, tables, curves: what was measured.
    thresholds: what thresholds from normal images give.
    aupimo: of the images with a known defect.
    training: how training went.
    data: what the files are that images and masks come from.
    timing: how long scoring took.
    settings: the whole config.
  """

  title: str
  items: Sequence[Item]
  scores: Mapping[str, np.ndarray]
  map_name: str
  limits: tuple[float, float]
  threshold: Threshold | None = None
  warnings: Sequence[str] = ()
  synthetic: Table | None = None
  headlines: Sequence[Headline] = ()
  tables: Sequence[Table] = ()
  curves: Sequence[Chart] = ()
  thresholds: ThresholdSection | None = None
  aupimo: Distribution | None = None
  training: Sequence[Chart] = ()
  data: DataReport = dataclasses.field(default_factory=DataReport)
  timing: Sequence[Fact] = ()
  settings: Sequence[Setting] = ()
