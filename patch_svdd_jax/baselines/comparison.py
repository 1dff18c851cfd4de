"""The systems side by side: table and bars.

An entry of a system is what its metrics.json has: 'maps', 'timing' and 'fit_seconds', of which the
main map counts; or 'error', one line, where it failed; or neither, where it was stopped.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS, TITLES
from patch_svdd_jax.reporting.table import Column, Table

if TYPE_CHECKING:
  from matplotlib.figure import Figure

COLUMNS = (
  Column('system', 'system'),
  *(Column(name, TITLES[name], '.3f') for name in (*AUROCS, 'aupro_30')),
  Column('fit_seconds', 'fit, s', '.1f'),
  Column('images_per_s', 'images/s', '.3g'),
  Column('error'),
)

Entries = Mapping[str, Mapping[str, Any]]


def row(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of a system by column; one that was not measured has no figures."""
  if 'maps' not in entry:
    return {'system': name, 'error': entry.get('error')}
  figures = entry['maps'][main_map(entry['maps'])]
  return {'system': name, **figures, **entry['timing'], 'fit_seconds': entry['fit_seconds']}


def state(entry: Mapping[str, Any]) -> str | None:
  """Returns why a system has no figures; None where it has."""
  return None if 'maps' in entry else 'failed' if 'error' in entry else 'unfinished'


def render(entries: Entries) -> tuple[str, Table]:
  """Returns the table and the errors as Markdown, and the table for CSV."""
  table = Table(COLUMNS, [row(name, entry) for name, entry in entries.items()])
  shown = [
    {'image_auroc': state(entry), **each}
    for each, entry in zip(table.rows, entries.values(), strict=True)
  ]
  errors = [f'{each["system"]} failed: {each["error"]}' for each in shown if each.get('error')]
  return '\n\n'.join([Table(COLUMNS, shown).to_markdown(), *errors]), table


def draw(entries: Entries) -> 'Figure':
  """Draws bars of image and pixel AUROC, by system; a dotted line is chance."""
  from matplotlib.figure import Figure  # it draws without a screen

  figure = Figure(figsize=(8, 0.6 + 0.45 * max(2, len(entries))), layout='constrained')
  axes = figure.subplots()
  rows = [row(name, entry) for name, entry in entries.items()]
  for index, (metric, title) in enumerate(AUROCS.items()):
    values = {place: row[metric] for place, row in enumerate(rows) if row.get(metric) is not None}
    places = [place + 0.4 * (index - 0.5) for place in values]
    bars = axes.barh(places, list(values.values()), height=0.38, label=title)
    axes.bar_label(bars, fmt='%.3f', padding=2, fontsize='small')
  axes.axvline(0.5, color='0.5', linestyle=':')
  states = {name: state(entry) for name, entry in entries.items()}
  labels = [f'{name} ({why})' if why else name for name, why in states.items()]
  axes.set_yticks(range(len(entries)), labels)
  axes.set_xlim(0, 1.1)
  axes.set_ylim(len(entries) - 0.5, -0.5)  # the first one on top
  if not all(states.values()):
    figure.legend(loc='outside lower center', ncols=len(AUROCS), fontsize='small')
  return figure
