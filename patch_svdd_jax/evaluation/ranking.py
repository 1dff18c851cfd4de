"""Where each anomalous element stands among the normal ones: all metrics and curves follow from it.

How many normal scores are above it, and how many at least equal to it. So each set of scores is
sorted once, and the counts are integers: a float32 count stops at 2^24.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from patch_svdd_jax.errors import UserError

# Pixels that touch by an edge or a corner are one region; images of a stack are not joined.
_EIGHT_CONNECTED = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


class Ranking(NamedTuple):
  """The anomalous elements by rising score, and the number of normal ones they compete with."""

  scores: np.ndarray  # f[P], rising
  weights: np.ndarray  # f64[P], 1 / size of the region of a pixel; 1 for images
  true_positives: np.ndarray  # i64[P], anomalous elements of a higher or an equal score
  false_positives: np.ndarray  # i64[P], normal elements of a higher or an equal score
  above: np.ndarray  # i64[P], normal elements of a higher score
  normals: int

  @property
  def one_class(self) -> bool:
    """Whether one of the two classes is absent."""
    return self.scores.size == 0 or self.normals == 0


class Pixels(NamedTuple):
  """The pixels of some images, those of the two classes apart."""

  anomalous: np.ndarray  # f[P]
  weights: np.ndarray  # f64[P], 1 / size of the region of a pixel
  images: np.ndarray  # i64[P], number of a pixel's image among these, rising
  normal: np.ndarray  # f[Q], rising


def check_scores(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The labels as bool and the scores as floats, of one shape and without a NaN."""
  labels, scores = np.asarray(labels, bool), np.asarray(scores)
  if scores.dtype not in (np.float32, np.float64):
    scores = scores.astype(np.float64)
  if labels.shape != scores.shape:
    raise ValueError(f'labels are {labels.shape} and scores {scores.shape}: shapes must agree')
  missing = np.isnan(scores)
  if missing.any():
    first = ', '.join(map(str, np.argwhere(missing)[0]))
    raise UserError(
      f'{np.count_nonzero(missing)} of {scores.size} anomaly scores are NaN, the first at index '
      f'({first}): check the model and its input, no metric can be computed'
    )
  return labels, scores


def take_pixels(masks: np.ndarray, maps: np.ndarray) -> Pixels:
  """Takes the pixels of some images apart; masks bool[N, H, W], maps f[N, H, W]."""
  defective = masks.any((1, 2))
  regions, _ = ndimage.label(masks[defective], _EIGHT_CONNECTED)
  of_pixel = regions[masks[defective]]
  normal = maps[~masks]
  normal.sort()
  images = np.repeat(np.arange(len(masks)), np.count_nonzero(masks, (1, 2)))
  return Pixels(maps[masks], 1 / np.bincount(of_pixel)[of_pixel], images, normal)


def rank_elements(labels: np.ndarray, scores: np.ndarray) -> Ranking:
  """Ranks the elements of any shape, all of one weight."""
  labels, scores = check_scores(labels, scores)
  ranked = np.sort(scores[labels])
  return _rank(ranked, np.ones(ranked.shape), [np.sort(scores[~labels])])


def rank_pixels(groups: Sequence[Pixels]) -> Ranking:
  """Ranks the anomalous pixels of all groups among the normal pixels of all groups."""
  anomalous = np.concatenate([group.anomalous for group in groups])
  weights = np.concatenate([group.weights for group in groups])
  order = np.argsort(anomalous)
  return _rank(anomalous[order], weights[order], [group.normal for group in groups])


def _rank(ranked: np.ndarray, weights: np.ndarray, normals: Sequence[np.ndarray]) -> Ranking:
  """Ranks anomalous elements f[P] among groups of normal ones, each f[Q]; all are rising."""
  count = sum(normal.size for normal in normals)
  at_most, below = np.zeros((2, ranked.size), np.int64)
  for normal in normals:
    at_most += np.searchsorted(normal, ranked, 'right')
    below += np.searchsorted(normal, ranked, 'left')
  found = ranked.size - np.searchsorted(ranked, ranked, 'left')
  return Ranking(ranked, weights, found, count - below, count - at_most, count)
