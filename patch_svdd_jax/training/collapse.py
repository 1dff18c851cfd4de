"""Notices when the embeddings of a scale collapse: all patches become the same point.

The neighbour loss alone would have it so, and a weight lambda or a learning rate that is too large
lets it win. A run does not come back from there, and its losses look ordinary: log 8 and 0.

An untrained encoder resembles a collapsed one. Its embeddings lie close together too (the authors'
shape: within thousandths), for hundreds of steps it can only guess positions, and meanwhile its
spread may rise and fall thirtyfold. So a scale has collapsed where

- it guesses: the share of positions it recognises in a call of the train step is within MARGIN, or
  within three standard errors of as many pairs, of 1/8, and
- its spread is below FRACTION of what it was in the run's first call, or of the largest with which
  it recognised twice as many positions as by guessing.

Measured on the embedded bricks, in calls of 10 steps: of runs that learn, no scale that guesses is
below .49 of its first spread (laptop.py, and the authors' shape on its plateau at learning rates of
3e-4 to 1e-3). At lambda = 1 and 10 laptop.py is below .1 after 30 (K=32) and 40 steps (K=16), and
at .006 and less after 300.

A contrastive loss (config.train.contrast) does not prevent it: it sees directions, not sizes. With
He's initialisation and a weight of 1 laptop.py at lambda = 10 is below .1 after 40 (K=32) and 50
steps (K=16), though the embeddings spread over ever more dimensions.
"""

import math
from collections.abc import Iterable, Mapping

import ml_collections

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.models.encoder import CHANCE
from patch_svdd_jax.training import optimizer

FRACTION = 0.1
MARGIN = 0.04


class CollapseError(UserError):
  """The embeddings of a scale collapsed, and config.train.on_collapse is 'stop'."""


class CollapseWatch:
  """Looks at the metrics of every call of a run.

  Args:
    config: the whole config.
    past: the metrics of the run's calls so far, where it was resumed.
  """

  def __init__(self, config: ml_collections.ConfigDict, past: Iterable[Mapping[str, float]] = ()):
    self._train = config.train
    self._scales = [scale_name(k) for k in config.encoder.scales]
    self._reference: dict[str, float] = {}
    self._reported: set[str] = set()
    pairs = config.train.steps_per_call * config.train.batch_size
    error = math.sqrt(CHANCE * (1 - CHANCE) / pairs)
    self._guessing = CHANCE + max(MARGIN, 3 * error)
    self._knowing = max(2 * CHANCE, self._guessing)
    for metrics in past:
      # Lines of validation have no spread.
      if f'embedding_spread/{self._scales[0]}' in metrics:
        self._remember(metrics)

  def __call__(self, step: int, metrics: Mapping[str, float]) -> str | None:
    """Warns of scales that have collapsed in the call that ended at `step`, of each once."""
    self._remember(metrics)
    fresh = [
      name
      for name in self._scales
      if name not in self._reported
      and metrics[f'embedding_spread/{name}'] < FRACTION * self._reference[name]
      and metrics[f'position_accuracy/{name}'] < self._guessing
    ]
    self._reported |= set(fresh)
    return self._warning(step, fresh, metrics) if fresh else None

  def _remember(self, metrics: Mapping[str, float]) -> None:
    for name in self._scales:
      spread = metrics[f'embedding_spread/{name}']
      reference = self._reference.setdefault(name, spread)
      if metrics[f'position_accuracy/{name}'] > self._knowing:
        self._reference[name] = max(reference, spread)

  def _warning(self, step: int, names: list[str], metrics: Mapping[str, float]) -> str:
    figures = '; '.join(
      f'{name}: spread {metrics[f"embedding_spread/{name}"]:.2g}, was '
      f'{self._reference[name]:.2g}, {metrics[f"position_accuracy/{name}"]:.1%} of positions right'
      for name in names
    )
    weight, rate = self._train.svdd_weight, optimizer.peak_learning_rate(self._train)
    return (
      f'by step {step} the embeddings have collapsed to a point ({figures}): lambda or the '
      f'learning rate is too large; in another --workdir try '
      f'config.train.svdd_weight={min(weight / 10, 1e-3):g} (now {weight:g}) or '
      f'config.train.learning_rate={rate / 10:g} (now {rate:g})'
    )
