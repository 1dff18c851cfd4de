"""The curves behind the metrics: exact, tie-aware, on raw scores.

Every curve is given by its vertices, to be joined by straight lines, and has the area that
`metrics` computes. Only anomalous scores make vertices: a threshold that passes normal elements
alone moves along a level line. So a curve of ten million pixels has as many vertices as defects
have pixels. Where one of the two classes is absent, it has none.
"""

from typing import NamedTuple

import numpy as np

from patch_svdd_jax.evaluation.ranking import (
  Ranking,
  check_scores,
  rank_elements,
  rank_pixels,
  take_pixels,
)


class Curve(NamedTuple):
  """The vertices of a curve.

  Attributes:
    x: f64[V], rising.
    y: f64[V].
  """

  x: np.ndarray
  y: np.ndarray


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> Curve:
  """Returns the share of anomalous elements found (y) over that of false alarms (x).

  From (0, 0) to (1, 1); elements of equal score make one oblique line. Its area is
  `metrics.auroc`.

  Args:
    labels: bool[...], True where anomalous.
    scores: f32 or f64[...], of the same shape.

  Raises:
    UserError: a score is NaN.
  """
  return _found_over_false(rank_elements(labels, scores))


def pro_curve(masks: np.ndarray, maps: np.ndarray, regions: np.ndarray | None = None) -> Curve:
  """Returns the per-region overlap (y) over the share of normal pixels called anomalous (x).

  From (0, 0) to (1, 1). Its area up to a limit, divided by the limit, is `metrics.aupro`, which
  says what an overlap is.

  Args:
    masks: bool[N, H, W], True where anomalous; all False for normal images, which belong here too.
    maps: f32 or f64[N, H, W], anomaly maps.
    regions: bool[N, H, W], whose pixels alone count; None: all do.

  Raises:
    UserError: a score is NaN.
  """
  masks, maps = check_scores(masks, maps)
  return _found_over_false(rank_pixels([take_pixels(masks, maps, regions)]))


def precision_recall_curve(labels: np.ndarray, scores: np.ndarray) -> Curve:
  """Returns precision (y) over recall (x), a staircase from recall 0 to 1.

  A step has the precision of the threshold at which its recall is reached: no interpolation. Its
  area is `metrics.average_precision`.

  Args:
    labels: bool[...], True where anomalous.
    scores: f32 or f64[...], of the same shape.

  Raises:
    UserError: a score is NaN.
  """
  ranking = rank_elements(labels, scores)
  if ranking.one_class:
    return _empty()
  last = _last_of_ties(ranking)
  found = ranking.true_positives[::-1][last]
  precision = found / (found + ranking.false_positives[::-1][last])
  recall = found / ranking.scores.size
  return Curve(_interleave(np.append(0, recall[:-1]), recall), np.repeat(precision, 2))


def up_to(curve: Curve, limit: float) -> Curve:
  """Returns the part of a curve where x <= `limit`, interpolated there."""
  if not curve.x.size:
    return curve
  inside = np.searchsorted(curve.x, limit, 'right')
  y = np.interp(limit, curve.x, curve.y) if inside < curve.x.size else curve.y[-1]
  return Curve(np.append(curve.x[:inside], limit), np.append(curve.y[:inside], y))


def _found_over_false(ranking: Ranking) -> Curve:
  """Makes two vertices of each anomalous score: before and after the threshold passes it."""
  if ranking.one_class:
    return _empty()
  last = _last_of_ties(ranking)
  found = np.cumsum(ranking.weights[::-1])[last]
  found /= found[-1]
  above, at_least = ranking.above[::-1][last], ranking.false_positives[::-1][last]
  x = np.concatenate([[0], _interleave(above, at_least) / ranking.normals, [1]])
  y = np.concatenate([[0], _interleave(np.append(0, found[:-1]), found), [1]])
  repeated = np.append(False, (np.diff(x) == 0) & (np.diff(y) == 0))
  return Curve(x[~repeated], y[~repeated])


def _last_of_ties(ranking: Ranking) -> np.ndarray:
  """Returns the place i64[V] of the last element of each anomalous score, by falling score."""
  falling = ranking.scores[::-1]
  return np.flatnonzero(np.append(falling[1:] != falling[:-1], True))


def _interleave(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  return np.stack([first, second], axis=1).ravel()


def _empty() -> Curve:
  return Curve(np.zeros(0), np.zeros(0))
