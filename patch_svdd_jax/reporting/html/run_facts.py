"""What a page says of the run behind it: training, timing, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from patch_svdd_jax import configuration
from patch_svdd_jax.configs import default
from patch_svdd_jax.models.encoder import CHANCE
from patch_svdd_jax.reporting import learning_curves, speed
from patch_svdd_jax.reporting.html import charts
from patch_svdd_jax.reporting.html.charts import Chart
from patch_svdd_jax.reporting.html.page import Fact, Setting

# Curves of training by what the monitor calls them: title, and unit of the y-axis.
TRAINING = {
  'loss': ('Loss', 'sum of weighted losses'),
  'position_accuracy': ('Positions right', 'share'),
  'position_loss': ('Position loss', 'cross-entropy, nats'),
  'neighbour_loss': ('Neighbour loss', 'mean distance'),
  'contrast_loss': ('Contrastive loss', 'cross-entropy, nats'),
  'centre_loss': ('Distance to the centre', 'mean distance'),
  'embedding_spread': ('Spread of embeddings', 'standard deviation'),
  'effective_rank': ('Effective rank of embeddings', 'dimensions'),
}
HELD_OUT = 'held_out/'

# From so many calls on lines are smoothed: of fewer, the mean would lag behind what it shows.
MANY_CALLS = 10 * learning_curves.SMOOTHED

STAGES = {
  'decode': 'reading of what was prepared',
  'embed': 'embedding',
  'search': 'search of the memory banks',
  'map': 'maps',
  'verdict': 'verdicts',
}
TIMING = {
  'search_gflop_per_s': ('search, by the whole product', 'GFLOP/s'),
  'search_fallback_fraction': ('share of patches whose search fell back', ''),
  'bank_rows': ('patches in the memory banks', ''),
  'metrics_seconds': ('metrics', 's'),
  'peak_memory_mib': ('peak memory', 'MiB'),
}


def timing(measured: Mapping[str, float], stages: Mapping[str, float]) -> list[Fact]:
  """Returns the timing of an evaluation, and the seconds an image of its stages, in words."""
  facts = [
    Fact(stage, title, 1e3 * stages[stage], 'ms an image')
    for stage, title in STAGES.items()
    if stage in stages
  ]
  if stages:
    rate = speed.one_after_another(stages)
    facts.append(Fact('images_per_s', 'all of these', rate, 'images/s'))
  return facts + [
    Fact(name, title, measured[name], unit)
    for name, (title, unit) in TIMING.items()
    if name in measured
  ]


def settings(config: ml_collections.ConfigDict) -> list[Setting]:
  """Returns all keys, with the default of those that differ from configs/default.py."""
  defaults = dict(configuration.flatten(default.get_config()))
  return [
    Setting(key, repr(value), repr(defaults[key]) if value != defaults[key] else None)
    for key, value in configuration.flatten(config)
  ]


def training_charts(history: Sequence[Mapping[str, float]]) -> list[Chart]:
  """Returns the curves of training, of all scales; none where nothing was recorded.

  Args:
    history: lines of `monitoring.read`.
  """
  keys = [*dict.fromkeys(key for line in history for key in line)]
  found = {name: [key for key in keys if key.partition('/')[0] == name] for name in TRAINING}
  return [_chart(name, scales, history) for name, scales in found.items() if scales]


def _chart(name: str, scales: Sequence[str], history: Sequence[Mapping[str, float]]) -> Chart:
  """Draws a line of each scale, and a dashed one of held-out images."""
  title, unit = TRAINING[name]
  chart = Chart(f'training-{name}', title, 'step', unit)
  for number, key in enumerate(scales):
    scale, colour = key.partition('/')[2], charts.COLOURS[number % len(charts.COLOURS)]
    x, y = _values(history, key)
    if len(y) >= MANY_CALLS:
      y = learning_curves.smooth(y)
      chart.caption = f'Solid lines: means over the last {learning_curves.SMOOTHED} calls.'
    chart.axes.plot(x, y, color=colour, label=scale or 'training')
    x, y = _values(history, HELD_OUT + key)
    if x.size:
      label = f'{scale}, held out' if scale else 'held out'
      chart.axes.plot(x, y, '--o', color=colour, markersize=4, label=label)
  if name == 'position_accuracy':
    look: dict[str, Any] = {'color': charts.RED, 'linestyle': ':', 'linewidth': 1.75}
    chart.axes.axhline(CHANCE, **look, label='chance')
  return chart


def _values(history: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the steps and the finite values of what was recorded under a key."""
  found = [(line['step'], line[key]) for line in history if np.isfinite(line.get(key, np.nan))]
  steps, values = np.array(found, np.float64).reshape(-1, 2).T
  return steps, values
