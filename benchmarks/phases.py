"""How long the phases of a trace take, and when: a table, and a picture.

The trace is one that --profile of train, eval or predict has recorded on a CPU; of GPUs and TPUs
XProf shows the phases by itself. A phase takes the time in which any of its operations is being
computed. Operations of two phases may be computed at once, so that shares may sum to more than
100 %. "device idle" is what is left of a step: the host prepares, waits or reads back. Stages of
the host count in full, in and between steps; those of several threads add up.

  python -m benchmarks.phases traces
  python -m benchmarks.phases traces --plot phases.png --close-up 1000:1100
"""

import argparse
import functools
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchmarks import trace_file
from benchmarks.trace_file import OTHER, PHASES, Interval, Trace
from patch_svdd_jax import commands
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.detection.scores import STAGES
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.table import Column, Table
from patch_svdd_jax.system import figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

COMPILATION = 'PjRtCpuClient::Compile'
# What the host does, with its title.
HOST = {name: name for name in (*STAGES, 'draw', 'validate', 'save')} | {COMPILATION: 'compile'}
IDLE = 'device idle'
COLUMNS = (
  Column('name', 'phase or stage'),
  Column('milliseconds', 'ms a step', '.1f'),
  Column('share', 'of the steps', '.1%'),
)
COLOURS = dict(zip(PHASES, ('C0', 'C1', 'C2', 'C3', 'C4', 'C5', 'C6', 'C8'), strict=True))
COLOURS[OTHER] = 'silver'


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the command line."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.phases',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    'trace', type=console.path, help='folder given as --profile, whose newest trace counts; or file'
  )
  outputs.add_arguments(parser, 'when each phase was computed')
  parser.add_argument(
    '--close-up', type=console.steps, metavar='A:B', help='draw these milliseconds once more'
  )
  return parser


def rows_of(trace: Trace) -> list[dict[str, str | float]]:
  """Returns a row for each phase and stage: its name, ms a step, and share of the steps' time.

  Raises:
    UserError: no whole step was recorded.
  """
  if not trace.steps:
    raise UserError('no whole step was recorded: give --profile-steps of more than one')
  whole = sum(step.end - step.start for step in trace.steps)

  def row(name: str, time: float) -> dict[str, str | float]:
    return {
      'name': name,
      'milliseconds': time / 1e6 / len(trace.steps),
      'share': time / whole,
    }

  rows = [row(f'step: {trace.steps[0].name}', whole)]
  for phase in (*PHASES, OTHER):
    inside = within(trace.steps, (each for each in trace.operations if each.name == phase))
    if inside:
      rows.append(row(f'device: {phase}', covered(inside)))
  rows.append(row(IDLE, whole - covered(within(trace.steps, trace.operations))))
  for name, title in HOST.items():
    if found := [each for each in trace.stages if each.name == name]:
      rows.append(row(f'host: {title}', sum(each.end - each.start for each in found)))
  return rows


def within(steps: Iterable[Interval], intervals: Iterable[Interval]) -> list[Interval]:
  """Returns what of intervals lies in steps, which follow each other."""
  found = []
  ordered = sorted(intervals, key=lambda each: each.start)
  for step in steps:
    for each in ordered:
      start, end = max(each.start, step.start), min(each.end, step.end)
      if start < end:
        found.append(Interval(each.name, start, end))
  return found


def covered(intervals: Iterable[Interval]) -> float:
  """Returns the time in which there is any of the intervals."""
  total, reached = 0.0, 0.0
  for each in sorted(intervals, key=lambda each: each.start):
    total += max(0.0, each.end - max(each.start, reached))
    reached = max(reached, each.end)
  return total


def draw(trace: Trace, close_up: tuple[int, int] | None) -> 'Figure':
  """Draws when steps, phases and stages of the host were computed."""
  from matplotlib.figure import Figure  # it draws without a screen

  everything = trace.steps + trace.operations + trace.stages
  whole = min(each.start for each in everything), max(each.end for each in everything)
  spans = [whole]
  if close_up:
    spans.append((whole[0] + close_up[0] * 1e6, whole[0] + close_up[1] * 1e6))
  figure = Figure(figsize=(11, 3.2 * len(spans)), layout='constrained')
  for panel, span in zip(figure.subplots(len(spans), squeeze=False)[:, 0], spans, strict=True):
    draw_span(panel, trace, whole[0], span)
  figure.supxlabel('milliseconds', fontsize='medium')
  return figure


def draw_span(panel: 'Axes', trace: Trace, origin: float, span: tuple[float, float]) -> None:
  """Draws what lies between two times, a row for each name."""
  rows = {f'step: {trace.steps[0].name}': ('k', trace.steps)}
  for name, title in HOST.items():
    rows[f'host: {title}'] = ('0.5', [each for each in trace.stages if each.name == name])
  for phase, colour in COLOURS.items():
    rows[f'device: {phase}'] = (colour, [each for each in trace.operations if each.name == phase])
  names: list[str] = []
  for name, (colour, intervals) in rows.items():
    if inside := within([Interval('', *span)], intervals):
      bars = [((each.start - origin) / 1e6, (each.end - each.start) / 1e6) for each in inside]
      edge = 'w' if colour == 'k' else None
      panel.broken_barh(bars, (len(names) - 0.4, 0.8), color=colour, edgecolor=edge)
      names.append(name)
  panel.set_yticks(range(len(names)), names)
  panel.invert_yaxis()
  panel.set_xlim((span[0] - origin) / 1e6, (span[1] - origin) / 1e6)
  panel.grid(axis='x', alpha=0.3)


def run(options: argparse.Namespace) -> int:
  """Reads, prints, writes."""
  outputs.check(options)
  path = trace_file.newest(options.trace)
  trace = trace_file.read(path, HOST)
  rows = rows_of(trace)
  print(f'{path}: {len(trace.steps)} steps')
  print(Table(COLUMNS, rows).to_markdown())
  outputs.write(options, rows, lambda suffix: figures.encode(draw(trace, options.close_up), suffix))
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Reads a trace; returns the exit status."""
  return commands.answer(functools.partial(run, make_parser().parse_args(argv)))


if __name__ == '__main__':
  sys.exit(main())
