"""Baselines without an encoder that a recipe must beat: raw patches, and local contrast alone."""

import dataclasses
import functools
from collections.abc import Callable

import ml_collections
import numpy as np

from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.detection import anomaly_map, bank_building
from patch_svdd_jax.detection.scores import Scores, in_batches, timed
from patch_svdd_jax.evaluation import local_contrast
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system.batching import Progress

# What whitening adds to all variances, as a share of their mean.
SHRINKAGE = 0.1


@dataclasses.dataclass(frozen=True)
class LocalContrast:
  """Scores pixels by the contrast of `side` x `side` pixels around them: no normal image counts."""

  side: int
  batch_size: int

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3], which have no regions; the map is called 'contrast'."""
    assert regions is None

    def score_batch(part: np.ndarray, _: np.ndarray | None) -> Scores:
      seconds: dict[str, float] = {}
      with timed(seconds, 'map', len(part)):
        maps = local_contrast.standard_deviation(part, self.side)
      return Scores(
        {'contrast': maps}, {'contrast': anomaly_map.image_score(maps)}, {}, {}, seconds
      )

    return in_batches(score_batch, images, self.batch_size, progress)


def fit_contrast(config: ml_collections.ConfigDict, _: np.ndarray) -> LocalContrast:
  """Returns the contrast of the smallest patches."""
  return LocalContrast(min(config.encoder.scales), config.score.batch_size)


def fit_raw_patches(
  config: ml_collections.ConfigDict, images: np.ndarray, *, whiten: bool
) -> RawPatches:
  """Returns the nearest raw patches at the strides of the smallest scale's patches.

  With `whiten` each principal component is divided by its standard deviation, with shrinkage:
  c_i / sqrt(v_i + .1 mean(v)), where v are the variances of the bank's rows.

  Args:
    config: the whole config.
    images: u8[N, H, W, 3], normal ones.
    whiten: whether distances are those of whitened components.
  """
  config = config.copy_and_resolve_references()
  config.baseline.stride = strides_of(config)[min(config.encoder.scales)]
  fitted = RawPatches.fit(config, images)
  if not whiten:
    return fitted
  rows = memory_bank.to_rows(fitted.bank)
  variances = rows.var(axis=0, dtype=np.float64)
  scales = ((variances + SHRINKAGE * variances.mean()) ** -0.5).astype(np.float32)
  pca = fitted.pca._replace(components=fitted.pca.components * scales[:, None])
  return dataclasses.replace(fitted, pca=pca, bank=bank_building.place(rows * scales))


# By name, of the whole config and normal images u8[N, H, W, 3].
FITTED: dict[str, Callable[[ml_collections.ConfigDict, np.ndarray], Scorer]] = {
  'local_contrast': fit_contrast,
  'raw_patch': functools.partial(fit_raw_patches, whiten=False),
  'raw_patch_whitened': functools.partial(fit_raw_patches, whiten=True),
}
