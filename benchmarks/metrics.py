"""The metrics of anomaly maps, beside scikit-learn's and the loop over thresholds for AU-PRO.

The maps are smooth noise, raised in two rectangles of each of three images in four. Each metric is
timed from maps and masks to its value, its sorting included; "all" is what `eval` computes for one
map, image metrics and AUPIMO of every image among them. They take turns, several rounds long, and
medians are reported. AUROC and AP must be scikit-learn's.

With --aupro, AU-PRO up to a false positive rate of .3 takes turns with the loop that evaluation
codes use for it (RD4AD's compute_pro, which many others have taken over): for each of --thresholds
scores, evenly spaced from the lowest to the highest, all maps are binarised, and the share of every
region of every mask that is found is averaged. Theirs are 200. It takes minutes, so that
--timed-thresholds may let it run over fewer of them; the seconds of all follow in proportion, and
the table says so.

  python -m benchmarks.metrics
  python -m benchmarks.metrics --aupro --rounds 3
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage
from skimage import measure
from sklearn import metrics as peer

from benchmarks import command_line
from patch_svdd_jax import commands
from patch_svdd_jax.benchmarking import machine, timing
from patch_svdd_jax.commands import outputs
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import aupimo, metrics
from patch_svdd_jax.evaluation.ranking import rank_elements, rank_pixels, take_pixels
from patch_svdd_jax.reporting.table import Column, Table
from patch_svdd_jax.system import figures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

SIZE = 256
# 5.4 and 113 million pixels.
IMAGES, AUPRO_IMAGES = 82, 1725
THRESHOLDS = 200
MAX_FPR = 0.3
# Of AU-PRO, by so few thresholds.
LOOP_ERROR = 0.02
PEER = 'scikit-learn AUROC'
OURS, LOOP = 'AU-PRO .3', 'loop over thresholds'
COLUMNS = (
  Column('name', 'metric'),
  Column('value', 'value', '.4f'),
  Column('seconds', 'seconds', '.3g'),
  Column('ratio', 'times the first', '.3g'),
)


class Maps(NamedTuple):
  """Anomaly maps of N images.

  Attributes:
    masks: bool[N, H, W].
    maps: f32[N, H, W].
  """

  masks: np.ndarray
  maps: np.ndarray


Metric = Callable[[Maps], float]


def make_maps(images: int, size: int = SIZE) -> Maps:
  """Makes smooth noise of deviation 1, raised by 2 in defects, always the same."""
  rng = np.random.default_rng(0)
  maps = rng.standard_normal((images, size, size), np.float32)
  masks = np.zeros(maps.shape, bool)
  for number, (values, mask) in enumerate(zip(maps, masks, strict=True)):
    ndimage.gaussian_filter(values, 3, output=values)
    values /= values.std()
    if number % 4:
      for top, left in rng.integers(size - size // 8, size=(2, 2)):
        mask[top : top + size // 8, left : left + size // 16] = True
      values[mask] += 2
  return Maps(masks, maps)


def of_elements(metric: Callable[..., float]) -> Metric:
  """Returns a metric of pixels that all weigh the same, from maps to its value."""
  return lambda given: metric(rank_elements(*given))


def aupro(given: Maps) -> float:
  """Returns our AU-PRO from maps."""
  return metrics.aupro(rank_pixels([take_pixels(*given)]), MAX_FPR)


def mean_aupimo(given: Maps) -> float:
  """Returns our mean AUPIMO from maps."""
  defective = np.any(given.masks, (1, 2))
  rising = np.sort(given.maps[~defective], axis=None)
  numbers = np.flatnonzero(given.masks) // given.masks[0].size
  found = aupimo.aupimo_of_images(rising, given.maps[given.masks], numbers, len(given.maps))
  return float(aupimo.distribution(found)['mean'])


def everything(given: Maps) -> float:
  """Returns AU-PRO .3 of all that `eval` computes for one map."""
  masks, maps = given
  labels = np.any(masks, (1, 2))
  names = np.where(labels, 'defect', 'good').tolist()
  known = np.ones(labels.shape, bool)
  measured = metrics.evaluate(labels, names, masks, known, maps.max((1, 2)), maps)
  return measured.overall['aupro_30']


def peer_auroc(given: Maps) -> float:
  """Returns scikit-learn's AUROC from maps."""
  return float(peer.roc_auc_score(given.masks.ravel(), given.maps.ravel()))


def peer_average_precision(given: Maps) -> float:
  """Returns scikit-learn's AP from maps."""
  return float(peer.average_precision_score(given.masks.ravel(), given.maps.ravel()))


METRICS: dict[str, Metric] = {
  PEER: peer_auroc,
  'scikit-learn AP': peer_average_precision,
  'AUROC': of_elements(metrics.auroc),
  'AP': of_elements(metrics.average_precision),
  'F1': of_elements(lambda ranking: metrics.f1_max(ranking)[0]),
  'mIoU': of_elements(metrics.miou_max),
  OURS: aupro,
  'AUPIMO': mean_aupimo,
  'all': everything,
}
# What must be equal.
EQUAL = {'AUROC': PEER, 'AP': 'scikit-learn AP', 'all': OURS}


def looped_aupro(given: Maps, thresholds: np.ndarray) -> float:
  """Returns AU-PRO by the loop over falling thresholds that evaluation codes use.

  Its work is that of RD4AD's compute_pro (Deng & Li 2022), which many others have taken over: masks
  are integers, maps are binarised in place, and regions are labelled anew for each threshold.
  """
  masks, maps = given.masks.astype(int), given.maps
  called = np.zeros(maps.shape, bool)
  rates, overlaps = [0.0], [0.0]
  for threshold in thresholds:
    called[maps < threshold] = False
    called[maps >= threshold] = True
    found = [
      image[region.coords[:, 0], region.coords[:, 1]].sum() / region.area
      for image, mask in zip(called, masks, strict=True)
      for region in measure.regionprops(measure.label(mask))
    ]
    overlaps.append(float(np.mean(found)))
    normal = 1 - masks
    rates.append(float(np.logical_and(normal, called).sum() / normal.sum()))
  x = np.append(np.minimum(rates, MAX_FPR), MAX_FPR)
  y = np.interp(x, rates, overlaps)
  return float(np.trapezoid(y, x) / MAX_FPR)


def falling_thresholds(maps: np.ndarray, count: int) -> np.ndarray:
  """Returns evenly spaced scores from the highest to the lowest, f32[count]."""
  return np.linspace(maps.max(), maps.min(), count, dtype=np.float32)


def measure_metrics(given: Maps, rounds: Sequence[int]) -> list[dict[str, str | float]]:
  """Times all metrics in turn; returns a row for each, scikit-learn's AUROC first.

  Raises:
    UserError: two that should be equal are not.
  """
  values = {name: metric(given) for name, metric in METRICS.items()}
  for name, other in EQUAL.items():
    check(name, values[name], other, values[other], 1e-9)
  calls = {name: functools.partial(metric, given) for name, metric in METRICS.items()}
  return rows_of(values, timing.interleave(calls, rounds))


def measure_aupro(
  given: Maps, thresholds: int, timed: int, rounds: Sequence[int]
) -> list[dict[str, str | float]]:
  """Times AU-PRO and the loop over `timed` of so many thresholds in turn; returns their rows."""
  scores = falling_thresholds(given.maps, thresholds)
  # Of all heights, for each costs the same.
  some = scores[np.linspace(0, thresholds - 1, timed).astype(int)]
  loop = f'{LOOP}, {thresholds}' + (f', {timed} timed' if timed < thresholds else '')
  contenders: dict[str, Metric] = {OURS: aupro, loop: lambda maps: looped_aupro(maps, some)}
  values: dict[str, float] = {}

  def note(name: str) -> None:
    values[name] = contenders[name](given)

  seconds = timing.interleave({name: functools.partial(note, name) for name in contenders}, rounds)
  if timed == thresholds:
    check(loop, values[loop], OURS, values[OURS], LOOP_ERROR)
  else:
    del values[loop]
  seconds[loop] = seconds[loop] * thresholds / timed
  return rows_of(values, seconds)


def check(name: str, value: float, other: str, expected: float, allowed: float) -> None:
  """Checks that two metrics have one value.

  Raises:
    UserError: names both.
  """
  if not abs(value - expected) <= allowed:
    raise UserError(f'{name} is {value:.9g} where {other} is {expected:.9g}')


def rows_of(
  values: dict[str, float], seconds: dict[str, np.ndarray]
) -> list[dict[str, str | float]]:
  """Returns a row of each contender: value, median seconds, median ratio to the first."""
  first = next(iter(seconds.values()))
  return [
    {
      'name': name,
      'value': values.get(name, float('nan')),
      'seconds': float(np.median(taken)),
      'ratio': float(np.median(taken / first)),
    }
    for name, taken in seconds.items()
  ]


def draw(rows: Sequence[dict[str, str | float]]) -> 'Figure':
  """Draws the seconds of each contender."""
  from matplotlib.figure import Figure  # it draws without a screen

  figure = Figure(figsize=(7, 0.4 * len(rows) + 1), layout='constrained')
  panel = figure.subplots()
  panel.barh([str(row['name']) for row in rows], [float(row['seconds']) for row in rows])
  panel.invert_yaxis()
  panel.set_xscale('log')
  panel.set_xlabel('seconds')
  return figure


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser = command_line.make_parser('metrics', __doc__, 5, 'seconds of each')
  parser.add_argument(
    '--images', type=positive, help=f'default {IMAGES}, with --aupro {AUPRO_IMAGES}'
  )
  parser.add_argument('--aupro', action='store_true', help='AU-PRO beside the loop alone')
  parser.add_argument('--thresholds', type=positive, default=THRESHOLDS, help='of the loop')
  parser.add_argument(
    '--timed-thresholds', type=positive, metavar='COUNT', help='run over so many of them alone'
  )
  return parser


def run(options: argparse.Namespace) -> int:
  """Measures, prints, writes."""
  outputs.check(options)
  given = make_maps(options.images or (AUPRO_IMAGES if options.aupro else IMAGES))
  rounds = list(range(options.rounds))
  if options.aupro:
    timed = min(options.timed_thresholds or options.thresholds, options.thresholds)
    rows = measure_aupro(given, options.thresholds, timed, rounds)
  else:
    rows = measure_metrics(given, rounds)
  where = f'{machine.processor_name()}, {machine.cores()} cores'
  print(f'{len(given.maps):,} maps of {SIZE} x {SIZE}, {given.maps.size:,} pixels; {where}')
  print(Table(COLUMNS, rows).to_markdown())
  outputs.write(options, rows, lambda suffix: figures.encode(draw(rows), suffix))
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Measures the metrics; returns the exit status."""
  return commands.answer(functools.partial(run, make_parser().parse_args(argv)))


if __name__ == '__main__':
  sys.exit(main())
