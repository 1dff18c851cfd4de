"""The table, the notes and the figure of the benchmark of whole detectors."""

from collections.abc import Sequence

from matplotlib.figure import Figure  # it draws without a screen

from patch_svdd_jax.benchmarking.contenders import PROGRAM
from patch_svdd_jax.benchmarking.measuring import OURS, PERCENTILES, TOLERANCE, TOTAL, Row
from patch_svdd_jax.detection.scores import STAGES
from patch_svdd_jax.models.geometry import ImageSize
from patch_svdd_jax.reporting.speed import digits
from patch_svdd_jax.reporting.table import markdown

SHOWN = (*STAGES, PROGRAM)
COLOURS = dict(
  zip(SHOWN, ('#bbbbbb', '#4477aa', '#ee6677', '#ccbb44', '#228833', '#aa3377'), strict=True)
)


def size_text(size: ImageSize) -> str:
  """Returns '128 x 256' of (height, width), and one number of a square."""
  return str(size[0]) if size[0] == size[1] else f'{size[0]} x {size[1]}'


def stages_of(rows: Sequence[Row]) -> list[str]:
  """Returns the stages that any row has, in their order."""
  return [stage for stage in SHOWN if any(stage in row.alone for row in rows)]


def table(rows: Sequence[Row]) -> str:
  """Returns a line about each contender at each size, in Markdown; times are of one image."""
  stages = stages_of(rows)
  names = [f'p{p}' for p in PERCENTILES]
  header = ['contender', 'pixels', 'patches', 'images/s', *(f'{name}, ms' for name in names)]
  header += [*stages, 'first image, s', 'peak MiB']
  lines = []
  for row in rows:
    line = [row.contender, size_text(row.size), f'{row.bank_rows:,}', digits(row.images_per_s)]
    line += [digits(1e3 * row.alone[TOTAL][name]) for name in names]
    for stage in stages:
      line.append(digits(1e3 * row.alone[stage]['p50']) if stage in row.alone else '-')
    lines.append([*line, digits(row.first_image_seconds), f'{row.peak_memory / 2**20:,.0f}'])
  return markdown(header, lines)


def notes(rows: Sequence[Row], device: str) -> str:
  """Returns what the figures are, in lines."""
  sizes = {row.size: row for row in rows}
  counts = ', '.join(
    f'{size_text(size)}: {row.rounds} rounds, {row.passes} x {row.files} files'
    for size, row in sizes.items()
  )
  lines = [
    (
      'p50, p95, p99: one image at a time, from its file to its verdict; beside them the medians '
      'of the stages. Images/s: files in batches, of which the next are decoded meanwhile; the '
      f'median. In turns, {counts}.'
    ),
    (
      'The first image compiles, and is in no other figure; nothing is kept of earlier runs. Peak '
      'memory is of a process with nothing but this contender.'
    ),
  ]
  if any(row.contender != OURS for row in rows):
    lines.append(
      f"All scores are within {TOLERANCE:g} of {OURS}'s, as a share of them; the farthest is "
      f'{max(row.score_difference for row in rows):.1g} away.'
    )
  if any(PROGRAM in row.alone for row in rows):
    lines.append(
      'An exported file embeds, searches, makes maps and judges in one program, without regions.'
    )
  return '\n'.join([*lines, device])


def draw(rows: Sequence[Row], device: str) -> Figure:
  """Draws the median milliseconds of each stage, stacked, by contender, a panel for each size.

  A line goes from the median of the whole to its 95th percentile.
  """
  sizes = list(dict.fromkeys(row.size for row in rows))
  most = max(sum(row.size == size for row in rows) for size in sizes)
  figure = Figure(figsize=(9, 1.2 + len(sizes) * (0.7 + 0.4 * most)), layout='constrained')
  panels = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
  for panel, size in zip(panels, sizes, strict=True):
    shown = [row for row in rows if row.size == size]
    ends = [0.0] * len(shown)
    for stage in stages_of(rows):
      widths = [1e3 * row.alone[stage]['p50'] if stage in row.alone else 0.0 for row in shown]
      panel.barh(range(len(shown)), widths, left=ends, color=COLOURS[stage], label=stage)
      ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for place, row in enumerate(shown):
      middle, high = (1e3 * row.alone[TOTAL][name] for name in ('p50', 'p95'))
      panel.plot([middle, high], [place, place], color='black', marker='|', linewidth=1)
      text = f' {digits(middle)} ms, {digits(row.images_per_s)} images/s'
      panel.text(max(high, ends[place]), place, text, va='center', fontsize='small')
    panel.set_yticks(range(len(shown)), [row.contender for row in shown])
    panel.set_ylim(len(shown) - 0.5, -0.5)  # the first one on top
    panel.margins(x=0.3)
    panel.set_xlim(0, None)
    patches = shown[0].bank_rows
    panel.set_title(f'{size_text(size)} pixels, {patches:,} patches', fontsize='medium', loc='left')
  panels[-1].set_xlabel('milliseconds of one image alone: medians of stages; line: p50 to p95')
  figure.legend(
    *panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=len(SHOWN)
  )
  figure.suptitle(device, fontsize='medium')
  return figure
