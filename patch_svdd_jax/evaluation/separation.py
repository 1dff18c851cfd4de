"""How well a scorer tells held-out normal images from synthetic anomalies on them, label-free."""

from typing import NamedTuple

import numpy as np

from patch_svdd_jax.data import synthetic_anomalies
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.system.batching import Progress, evenly_spaced

# Held-out images that are used at most, each as it is and with an anomaly of every kind.
IMAGES = 16
# Pixels along a side, about, whose scores say how sure a pixel AUROC is: maps are smooth.
_SAMPLED = 64


class Examples(NamedTuple):
  """N held-out normal images, then M with a synthetic anomaly.

  Attributes:
    images: u8[N + M, H, W, 3].
    masks: bool[N + M, H, W], empty ones of the normal images.
    kinds: N + M names of `synthetic_anomalies.KINDS`, '' of normal images.
    sources: i64[N + M] in 0..N-1, which normal image each was made of.
    regions: bool[N + M, H, W], see `Split.regions`.
  """

  images: np.ndarray
  masks: np.ndarray
  kinds: list[str]
  sources: np.ndarray
  regions: np.ndarray | None = None


class Separation(NamedTuple):
  """How far the main map of a scorer sets the anomalies apart.

  Attributes:
    figures: of all kinds, by `metrics.TITLES`.
    per_kind: of each kind against all normal images.
    influences: f64[N] by 'image_auroc' and 'pixel_auroc', see `auroc_influences`.
  """

  figures: dict[str, float]
  per_kind: dict[str, dict[str, float]]
  influences: dict[str, np.ndarray]


def make_examples(held_out: np.ndarray, regions: np.ndarray | None = None) -> Examples:
  """Makes the examples of held-out normal images u8[N, H, W, 3], always the same ones.

  Of images with regions bool[N, H, W] the anomalies lie there.
  """
  chosen = evenly_spaced(len(held_out), IMAGES)
  normal = held_out[chosen]
  inside = None if regions is None else regions[chosen]
  made = [
    synthetic_anomalies.make(
      image[None], seed=number, regions=None if inside is None else inside[number, None]
    )
    for number, image in enumerate(normal)
  ]
  counts = [len(kinds) for _, _, kinds in made]
  sources = np.concatenate([np.arange(len(normal)), np.repeat(np.arange(len(normal)), counts)])
  return Examples(
    np.concatenate([normal, *(images for images, _, _ in made)]),
    np.concatenate([np.zeros(normal.shape[:3], bool), *(masks for _, masks, _ in made)]),
    [''] * len(normal) + [kind for _, _, kinds in made for kind in kinds],
    sources,
    None if inside is None else inside[sources],
  )


def separate(scorer: Scorer, examples: Examples, progress: Progress = iter) -> Separation:
  """Scores the examples, and measures how well their scores tell which of them are anomalous.

  Args:
    scorer: fitted on other images than the examples are made of.
    examples: see `make_examples`.
    progress: wraps the iterable of batches.
  """
  scores = scorer.score(examples.images, progress, examples.regions)
  images, maps = scores.images[scores.main_map], scores.maps[scores.main_map]
  labels = np.array([bool(kind) for kind in examples.kinds])
  known = np.ones(len(labels), bool)
  figures, per_kind, _ = metrics.evaluate(
    labels, examples.kinds, examples.masks, known, images, maps, examples.regions
  )
  count = int(np.count_nonzero(~labels))
  step = max(1, min(maps.shape[1:]) // _SAMPLED)
  sampled = (slice(None), slice(None, None, step), slice(None, None, step))
  pixels = maps[sampled]
  sources = np.broadcast_to(examples.sources[:, None, None], pixels.shape)
  inside = slice(None) if examples.regions is None else examples.regions[sampled]
  influences = {
    'image_auroc': auroc_influences(labels, images, examples.sources, count),
    'pixel_auroc': auroc_influences(
      examples.masks[sampled][inside], pixels[inside], sources[inside], count
    ),
  }
  return Separation(figures, per_kind, influences)


def auroc_influences(
  labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, count: int
) -> np.ndarray:
  """Returns what each group of dependent elements adds to the AUROC's deviation, f64[count].

  d_g = sum_{i in g, anomalous} (V_i - A) / P + sum_{j in g, normal} (W_j - A) / Q, where A is the
  AUROC, V_i the share of the Q normal elements below i, W_j that of the P anomalous ones above j,
  ties counting one half. The variance of A is G / (G - 1) sum_g d_g^2 over the G groups, that of
  the difference of two scorers' on the same elements is it of the differences of d (Obuchowski
  1997, Nonparametric analysis of clustered ROC curve data; DeLong et al. 1988 without groups).

  Args:
    labels: bool[...], True where anomalous.
    scores: f[...].
    groups: i[...] in 0..count-1.
    count: G.
  """
  if labels.all() or not labels.any():
    return np.full(count, np.nan)
  anomalous, normal = scores[labels], scores[~labels]
  above = _share_below(anomalous, normal)
  below = 1 - _share_below(normal, anomalous)
  area = above.mean()
  influence: np.ndarray = np.bincount(groups[labels], above - area, minlength=count) / len(
    above
  ) + np.bincount(groups[~labels], below - area, minlength=count) / len(below)
  return influence


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns the share of others that lies below each value, equal ones counting one half."""
  rising = np.sort(others)
  halves = np.searchsorted(rising, values, 'left') + np.searchsorted(rising, values, 'right')
  share: np.ndarray = halves / (2 * len(others))
  return share


def standard_error(influences: np.ndarray) -> float:
  """Returns the standard error of the sum that groups with influences f64[G] deviate; G > 1."""
  count = len(influences)
  return float(np.sqrt(count / (count - 1) * np.sum(influences**2)))
