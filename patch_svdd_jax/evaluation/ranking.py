"""Where each anomalous element stands among the normal ones: all metrics and curves follow from it.

How many normal scores are above it, and how many at least equal to it. So each set of scores is
sorted once, and the counts are integers: a float32 count stops at 2^24.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from patch_svdd_jax.errors import UserError

# Pixels that touch by an edge or a corner are one region.
_EIGHT_CONNECTED = np.ones((3, 3))
# Scores that are searched for at a time.
_BLOCK = 4096


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
  normal_images: np.ndarray | None = None  # i64[Q], their images; None where these are whole


def check_scores(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the labels as bool and the scores as floats, of one shape and without a NaN."""
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


def take_pixels(masks: np.ndarray, maps: np.ndarray, regions: np.ndarray | None = None) -> Pixels:
  """Takes the pixels of some images apart; masks bool[N, H, W], maps f[N, H, W].

  Of images with regions of interest, bool[N, H, W], only pixels in these: a defect that reaches out
  of its region ends there.
  """
  if regions is not None:
    masks = masks & regions
  anomalous = maps[masks]
  weights = [_region_weights(mask) for mask in masks[masks.any((1, 2))]]
  images = np.flatnonzero(masks) // math.prod(masks.shape[1:])
  normal_images = None
  if regions is None:
    # The anomalous pixels become the lowest, and are cut off: to gather the others takes longer.
    rising = maps.flatten()
    rising[masks.ravel()] = -np.inf
    rising.sort()
    rising = rising[anomalous.size :]
  else:
    normal = regions & ~masks
    rising, normal_images = maps[normal], np.flatnonzero(normal) // math.prod(masks.shape[1:])
    order = np.argsort(rising)
    rising, normal_images = rising[order], normal_images[order]
  return Pixels(anomalous, np.concatenate([np.zeros(0), *weights]), images, rising, normal_images)


def _region_weights(mask: np.ndarray) -> np.ndarray:
  """Returns 1 / size of the region of each pixel of a mask bool[H, W] that is not all False."""
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  regions, _ = ndimage.label(box, _EIGHT_CONNECTED)
  of_pixel = regions[box]
  weights: np.ndarray = 1 / np.bincount(of_pixel)[of_pixel]
  return weights


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
    at_most += _search(normal, ranked, 'right')
    below += _search(normal, ranked, 'left')
  found = ranked.size - np.searchsorted(ranked, ranked, 'left')
  return Ranking(ranked, weights, found, count - below, count - at_most, count)


def _search(rising: np.ndarray, values: np.ndarray, side: Literal['left', 'right']) -> np.ndarray:
  """Returns `np.searchsorted` of rising values; each block searches a piece that caches hold."""
  ends = np.append(np.searchsorted(rising, values[::_BLOCK], side), rising.size)
  places = [np.zeros(0, np.int64)]
  for block, (start, end) in enumerate(itertools.pairwise(ends)):
    wanted = values[block * _BLOCK : (block + 1) * _BLOCK]
    places.append(start + np.searchsorted(rising[start:end], wanted, side))
  return np.concatenate(places)
