"""The table, the notes and the figure of the benchmark of the train step."""

import statistics
from collections.abc import Callable, Sequence

import jax
import ml_collections
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # it draws without a screen

from patch_svdd_jax.benchmarking import machine
from patch_svdd_jax.benchmarking.scaling import Largest, Limits, Row
from patch_svdd_jax.reporting.speed import digits
from patch_svdd_jax.reporting.table import Column, Table

COLUMNS = (
  Column('devices', 'devices', ','),
  Column('batch', 'batch', ','),
  Column('each', 'a device', ',.6g'),
  Column('milliseconds', 'ms a step', ',.4g'),
  Column('pairs_per_s', 'pairs/s', ',.4g'),
  Column('strong', 'strong', '.1%'),
  Column('weak', 'weak', '.1%'),
  Column('utilisation', 'of peak', '.1%'),
  Column('megabytes', 'program, MB', ',.4g'),
  Column('rounds', 'rounds', ','),
)
WHY_NOT = Column('why_not', 'not measured')


def table(rows: Sequence[Row]) -> str:
  """Returns a line about each point, in Markdown; dashes, and why, where nothing was measured."""
  lines = [
    vars(row)
    | {
      'each': row.batch / row.devices,
      'milliseconds': None if row.seconds is None else 1e3 * row.seconds,
      'megabytes': None if row.memory is None else row.memory / 1e6,
      'why_not': row.why_not or None,
    }
    for row in rows
  ]
  columns = (*COLUMNS, WHY_NOT) if any(row.why_not for row in rows) else COLUMNS
  return Table(columns, lines).to_markdown()


def notes(
  config: ml_collections.ConfigDict,
  rows: Sequence[Row],
  largest: Sequence[Largest],
  limits: Limits,
  is_published: bool,
) -> str:
  """Returns what the figures are, in lines."""
  return '\n'.join(
    [
      (
        'A batch of N has N position and N neighbour pairs at each scale; pairs/s counts all of '
        'them. Medians of the rounds; those of a batch take turns. Points whose first two steps '
        f'would take more than --seconds {limits.seconds:g}, by the speed of smaller batches, are '
        'left out.'
      ),
      (
        'strong: pairs/s a device, as a share of those of the fewest devices with the same batch; '
        'weak: with as many pairs on each device.'
      ),
      peak_note(config, rows, is_published),
      *(largest_note(each) for each in largest),
      *([cpu_note(rows)] if jax.default_backend() == 'cpu' else []),
      machine.device_name(),
    ]
  )


def peak_note(config: ml_collections.ConfigDict, rows: Sequence[Row], is_published: bool) -> str:
  """Returns what the utilisation is of."""
  peaks: dict[int, list[float]] = {}
  for row in rows:
    if row.peak:
      peaks.setdefault(row.devices, []).append(row.peak)
  listed = ', '.join(
    f'{count}: {digits(statistics.median(found) / 1e9)} GFLOP/s'
    for count, found in sorted(peaks.items())
  )
  source = 'its published peak' if is_published else 'a matrix product in the same rounds'
  return (
    "of peak: the encoder's FLOPs by its shape, forward and both gradients, as a share of what "
    f'the devices could do in {config.train.compute}, by {source}'
    + (f' ({listed}).' if listed else '.')
  )


def largest_note(found: Largest) -> str:
  """Returns a line about the largest batch that fits."""
  devices = f'{found.devices} device' + ('s' if found.devices > 1 else '')
  return (
    f'The largest batch that fits on {devices} with config.train.accumulate={found.accumulate}: '
    f'{found.most:,}, by what the compiled program holds; {found.free / 1e9:,.3g} GB are free on '
    'each.'
  )


def cpu_note(rows: Sequence[Row]) -> str:
  """Returns what devices of a CPU are."""
  if max(row.devices for row in rows) == 1:
    return 'The device of a CPU is all of its cores.'
  return f'Devices of a CPU have a thread each, and share {machine.cores()} cores and the memory.'


def draw(rows: Sequence[Row], title: str) -> Figure:
  """Draws pairs/s over devices, by batch and by pairs a device, and utilisation over the batch."""
  figure = Figure(figsize=(14, 4.5), layout='constrained')
  strong, weak, share = figure.subplots(1, 3)
  measured = [row for row in rows if row.pairs_per_s]
  draw_scaling(strong, measured, lambda row: row.batch, 'strong scaling: the same batch')
  draw_scaling(
    weak, measured, lambda row: row.batch / row.devices, 'weak scaling: as many pairs a device'
  )
  for count in sorted({row.devices for row in measured}):
    shown = [row for row in measured if row.devices == count]
    label = f'{count} device' + ('s' if count > 1 else '')
    percent = [100 * (row.utilisation or 0) for row in shown]
    share.plot([row.batch for row in shown], percent, marker='o', label=label)
  share.set(xscale='log', xlabel='batch', ylabel='% of peak', ylim=(0, None), title='utilisation')
  sizes = sorted({row.batch for row in measured})
  share.set_xticks(sizes, [f'{size:,}' for size in sizes], rotation=30)
  share.minorticks_off()
  for panel in (strong, weak, share):
    panel.grid(alpha=0.3)
    if measured:
      panel.legend(fontsize='small')
  figure.suptitle(title, fontsize='medium')
  return figure


def draw_scaling(panel: Axes, rows: Sequence[Row], kin: Callable[[Row], float], title: str) -> None:
  """Draws pairs/s over devices, a line for each kin; dashed what its fewest devices promise.

  Where there are lines, kin of a single row are left out.
  """
  kinds = {name: [row for row in rows if kin(row) == name] for name in sorted(map(kin, rows))}
  most = max(map(len, kinds.values()), default=0)
  for name, found in kinds.items():
    if len(found) < min(most, 2):
      continue
    shown = sorted(found, key=lambda row: row.devices)
    counts = [row.devices for row in shown]
    each = (shown[0].pairs_per_s or 0) / counts[0]
    speeds = [row.pairs_per_s or 0 for row in shown]
    (line,) = panel.plot(counts, speeds, marker='o', label=f'{name:,g}')
    panel.plot(counts, [each * count for count in counts], '--', color=line.get_color(), lw=0.8)
  counts = sorted({row.devices for row in rows})
  panel.set(xlabel='devices', ylabel='pairs/s', ylim=(0, None), title=title)
  panel.set_xticks(counts, [str(count) for count in counts])
