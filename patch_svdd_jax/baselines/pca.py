"""The leading principal components of raw pixels, which OC-SVM and SVDD work on."""

from typing import NamedTuple

import numpy as np

from patch_svdd_jax.baselines import extra


class Pca(NamedTuple):
  """Principal components of rows.

  Attributes:
    mean: f32[D].
    components: f32[C, D], orthonormal, those of the largest variance first.
  """

  mean: np.ndarray
  components: np.ndarray

  def reduce(self, rows: np.ndarray) -> np.ndarray:
    """Returns the coordinates f64[..., C] of rows f32[..., D]."""
    coordinates: np.ndarray = ((rows - self.mean) @ self.components.T).astype(np.float64)
    return coordinates


def fit(rows: np.ndarray, components: int, seed: int) -> Pca:
  """Returns the components of rows f32[N, D], by scikit-learn; no more than N or D.

  Raises:
    UserError: scikit-learn is not installed.
  """
  decomposition = extra.import_module('sklearn.decomposition')
  count = min(components, *rows.shape)
  # Exact, unlike the randomised solver that scikit-learn would choose, and as quick.
  solver = 'arpack' if count < min(rows.shape) else 'full'
  found = decomposition.PCA(count, svd_solver=solver, random_state=seed).fit(rows)
  return Pca(found.mean_.astype(np.float32), found.components_.astype(np.float32))
