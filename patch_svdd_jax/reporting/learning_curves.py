"""How runs went, side by side: what they learned and scored over their time and their FLOPs."""

import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_collections
import numpy as np

from patch_svdd_jax import configuration
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.models import flops
from patch_svdd_jax.training import monitoring

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Positions recognised are noisy call by call: the mean over so many is shown.
SMOOTHED = 10

# Panel columns: heading, and what a step counts.
AXES: dict[str, Callable[['Run'], float]] = {
  'minutes of training': lambda run: run.seconds_per_step / 60,
  'TFLOP of the encoder': lambda run: run.flops_per_step / 1e12,
}


class Run(NamedTuple):
  """One run.

  Attributes:
    config: the whole config.
    steps: i64[calls], the last step of each call.
    accuracies: f64[calls] of each scale, by name.
    seconds_per_step: the median over calls; compilation, validation and saving are not in it.
    flops_per_step: of the encoder, by `flops.step_flops`.
    figures: test metrics of the main map, by checkpoint, where eval has measured them all.
    chosen: the checkpoint that held-out images chose; None where they were not measured.
  """

  config: ml_collections.ConfigDict
  steps: np.ndarray
  accuracies: Mapping[str, np.ndarray]
  seconds_per_step: float
  flops_per_step: int
  figures: Mapping[int, Mapping[str, float]]
  chosen: int | None


def read(workdir: pathlib.Path) -> Run:
  """Returns the run of a workdir.

  Raises:
    UserError: nothing was trained there.
  """
  config = configuration.load(workdir)
  calls = [line for line in monitoring.read(workdir) if 'steps_per_s' in line]
  if not calls:
    raise UserError(f'{workdir}: no step was recorded in {monitoring.METRICS}: train there first')
  names = [name for name in calls[0] if name.startswith('position_accuracy/')]
  evaluated = workdir / 'eval' / 'metrics.json'
  rows = (
    json.loads(evaluated.read_text('utf-8')).get('checkpoints', []) if evaluated.exists() else []
  )
  return Run(
    config,
    np.array([line['step'] for line in calls]),
    {name.partition('/')[2]: np.array([line[name] for line in calls]) for name in names},
    statistics.median(1 / line['steps_per_s'] for line in calls),
    flops.step_flops(config),
    {row['step']: row['figures'] for row in rows},
    next((row['step'] for row in rows if 'chosen' in row['marks']), None),
  )


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """Groups runs that differ by their seed alone, and names them by what tells them apart."""
  settings = [dict(configuration.flatten(run.config)) for run in runs]
  differing = [
    key
    for key in settings[0]
    if key != 'config.seed' and len({repr(each.get(key)) for each in settings}) > 1
  ]
  groups: dict[str, list[Run]] = {}
  for run, each in zip(runs, settings, strict=True):
    name = ', '.join(f'{key.rpartition(".")[2]}={each.get(key)}' for key in differing)
    groups.setdefault(name or 'all', []).append(run)
  return groups


def smooth(values: np.ndarray) -> np.ndarray:
  """Returns the mean over the last SMOOTHED calls, fewer at the start."""
  sums = np.concatenate([[0.0], np.cumsum(values)])
  last = np.arange(1, len(values) + 1)
  first = np.maximum(last - SMOOTHED, 0)
  smoothed: np.ndarray = (sums[last] - sums[first]) / (last - first)
  return smoothed


def summary(groups: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
  """Returns one entry a run: what it took and where it ended."""
  entries = []
  for name, runs in groups.items():
    for run in runs:
      final, chosen = (run.figures.get(int(step)) for step in (run.steps[-1], run.chosen or 0))
      entries.append(
        {
          'group': name,
          'seed': run.config.seed,
          'steps': int(run.steps[-1]),
          'seconds': run.seconds_per_step * int(run.steps[-1]),
          'tflop': run.flops_per_step * int(run.steps[-1]) / 1e12,
          'accuracy': {k: float(smooth(values)[-1]) for k, values in run.accuracies.items()},
          'final': final and {metric: final[metric] for metric in AUROCS},
          'chosen': chosen and {metric: chosen[metric] for metric in AUROCS},
        }
      )
  return entries


def draw(groups: Mapping[str, Sequence[Run]]) -> 'Figure':
  """Draws positions recognised at each scale and test AUROCs, over time and over FLOPs."""
  from matplotlib.figure import Figure  # it draws without a screen

  first = next(iter(groups.values()))[0]
  measured = any(run.figures for runs in groups.values() for run in runs)
  scales = list(first.accuracies)
  panels = [f'positions right, {scale}' for scale in scales]
  panels += [f'{title} (test)' for title in AUROCS.values() if measured]
  figure = Figure(figsize=(5 * len(AXES), 2.4 * len(panels) + 0.6), layout='constrained')
  grid = figure.subplots(len(panels), len(AXES), sharex='col', sharey='row', squeeze=False)
  for colour, (name, runs) in enumerate(groups.items()):
    for index, run in enumerate(runs):
      look: dict[str, Any] = {'color': f'C{colour}', 'alpha': 0.8}
      for column, of_step in enumerate(AXES.values()):
        for row, scale in enumerate(scales):
          # One line of each group stands for it in the legend.
          label = name if not (index or row or column) else None
          places = run.steps * of_step(run)
          grid[row, column].plot(places, smooth(run.accuracies[scale]), label=label, **look)
        steps = sorted(run.figures)
        for row, metric in enumerate(AUROCS, len(scales)):
          if steps:
            values = [run.figures[step][metric] for step in steps]
            grid[row, column].plot(np.array(steps) * of_step(run), values, marker='.', **look)
  for row, heading in enumerate(panels):
    grid[row, 0].set_ylabel(heading)
    for panel in grid[row]:
      panel.grid(alpha=0.3)
  for column, heading in enumerate(AXES):
    grid[-1, column].set_xlabel(heading)
  figure.legend(*grid[0, 0].get_legend_handles_labels(), loc='outside upper center')
  return figure
