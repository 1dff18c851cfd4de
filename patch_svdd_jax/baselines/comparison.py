"""The systems side by side: table, CSV, bars.

An entry of a system is what its metrics.json has: 'maps', 'timing' and 'fit_seconds', of which the
main map counts; or 'error', one line, where it failed; or neither, where it was stopped.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS, TITLES
from patch_svdd_jax.system.figures import encode

METRICS = {name: TITLES[name] for name in (*AUROCS, 'aupro_30')}


def finished(entry: Mapping[str, Any]) -> bool:
  """Whether a system was measured."""
  return 'maps' in entry


def main_figures(entry: Mapping[str, Any]) -> Mapping[str, float | None]:
  """The metrics of a measured system."""
  figures: Mapping[str, float | None] = entry['maps'][main_map(entry['maps'])]
  return figures


def number(value: float | None, digits: str) -> str:
  """A number, or '-' for a metric that needs both classes."""
  return '-' if value is None else format(value, digits)


def table(entries: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
  """The header and one row a system; those that failed have no figures."""
  header = ['system', *METRICS.values(), 'fit, s', 'images/s']
  rows = []
  for name, entry in entries.items():
    if finished(entry):
      figures = [number(main_figures(entry)[metric], '.3f') for metric in METRICS]
      figures += [number(entry['fit_seconds'], '.1f')]
      figures += [number(entry['timing']['images_per_s'], '.3g')]
    else:
      figures = ['failed' if 'error' in entry else 'unfinished', *'-' * (len(header) - 2)]
    rows.append([name, *figures])
  return header, rows


def errors(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A line about each system that failed."""
  return [f'{name} failed: {entry["error"]}' for name, entry in entries.items() if 'error' in entry]


def to_csv(entries: Mapping[str, Mapping[str, Any]]) -> str:
  """The same as CSV, in full precision."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['system', *METRICS, 'fit_seconds', 'images_per_s', 'error'])
  for name, entry in entries.items():
    figures: list[Any] = [''] * (len(METRICS) + 2)
    if finished(entry):
      figures = [main_figures(entry)[metric] for metric in METRICS]
      figures += [entry['fit_seconds'], entry['timing']['images_per_s']]
    writer.writerow([name, *figures, entry.get('error', '')])
  return text.getvalue()


def draw(entries: Mapping[str, Mapping[str, Any]], suffix: str) -> bytes:
  """Bars of image and pixel AUROC, by system; a dotted line is chance."""
  from matplotlib.figure import Figure  # it draws without a screen

  height = 0.6 + 0.45 * max(2, len(entries))
  figure = Figure(figsize=(8, height), layout='constrained')
  axes = figure.subplots()
  for index, metric in enumerate(AUROCS):
    measured = [
      (place, value)
      for place, entry in enumerate(entries.values())
      if finished(entry) and (value := main_figures(entry)[metric]) is not None
    ]
    bars = axes.barh(
      [place + 0.4 * (index - 0.5) for place, _ in measured],
      [value for _, value in measured],
      height=0.38,
      label=METRICS[metric],
    )
    axes.bar_label(bars, fmt='%.3f', padding=2, fontsize='small')
  axes.axvline(0.5, color='0.5', linestyle=':')
  labels = [
    name if finished(entry) else f'{name} ({"failed" if "error" in entry else "unfinished"})'
    for name, entry in entries.items()
  ]
  axes.set_yticks(range(len(entries)), labels)
  axes.set_xlim(0, 1.1)
  axes.set_ylim(len(entries) - 0.5, -0.5)  # the first one on top
  if any(finished(entry) for entry in entries.values()):
    figure.legend(loc='outside lower center', ncols=len(AUROCS), fontsize='small')
  return encode(figure, suffix)
