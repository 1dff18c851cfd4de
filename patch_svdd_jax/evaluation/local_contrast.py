"""How well maps find defects among pixels of like contrast.

On images of an object before a plain background defects lie where there is something to see, so the
standard deviation of a pixel's surroundings, which knows nothing of normal images, has a high pixel
AUROC. Among pixels whose surroundings vary alike it has hardly more than chance: what a map scores
there it has learned.
"""

import numpy as np
from scipy import ndimage

from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.evaluation.ranking import check_scores, rank_elements

# Groups that pixels are divided into.
GROUPS = 10


def standard_deviation(images: np.ndarray, side: int) -> np.ndarray:
  """Returns the local contrast of every pixel, f32[N, H, W] in grey levels.

  It is the standard deviation of the grey values, the mean of the channels, of side x side pixels:
  those of side // 2 rows above, the pixel's own, and the others below; columns likewise. Images are
  mirrored at their edges.

  Args:
    images: u8[N, H, W, 3].
    side: in pixels.
  """
  grey = images.mean(axis=-1, dtype=np.float64)
  # Around their mean: the squares of bright images would cancel.
  grey -= grey.mean()
  mean, squares = (ndimage.uniform_filter(each, (1, side, side)) for each in (grey, grey**2))
  deviation: np.ndarray = np.sqrt(np.maximum(squares - mean**2, 0)).astype(np.float32)
  return deviation


def auroc_within_groups(contrast: np.ndarray, masks: np.ndarray, maps: np.ndarray) -> float:
  """Returns the pixel AUROC among pixels of like contrast, in [0, 1].

  All pixels are divided by rising contrast into ten groups of equal size, those of equal contrast
  in their order. The AUROCs within groups are averaged, each weighted by its anomalous pixels:

    sum_g P_g AUROC_g / sum_g P_g

  Groups that have one class only are left out; NaN where all have.

  Args:
    contrast: f[N, H, W], of every pixel.
    masks: bool[N, H, W], True where anomalous.
    maps: f32 or f64[N, H, W], anomaly maps.

  Raises:
    UserError: a score is NaN.
  """
  masks, maps = check_scores(masks, maps)
  order = np.argsort(contrast, axis=None, kind='stable')
  labels, scores = masks.ravel()[order], maps.ravel()[order]
  found, weights = [], []
  for group in np.array_split(np.arange(len(order)), GROUPS):
    ranking = rank_elements(labels[group], scores[group])
    if not ranking.one_class:
      found.append(metrics.auroc(ranking))
      weights.append(ranking.scores.size)
  return float(np.average(found, weights=weights)) if found else float('nan')
