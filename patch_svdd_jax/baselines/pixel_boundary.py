"""OC-SVM and SVDD on raw pixels, reduced by PCA: of whole images, or of patches.

Patches are K x K pixels, K = config.encoder.receptive_field, config.baseline.stride apart; of all
of them config.baseline.fitted_patches are drawn to fit to.
"""

import dataclasses
import pathlib

import ml_collections
import numpy as np

from patch_svdd_jax.baselines import (
  kernel_svdd,
  kernels,
  one_class_svm,
  patches,
  pca,
  saved,
  scoring,
)
from patch_svdd_jax.baselines.kernels import Boundary, Kernel
from patch_svdd_jax.baselines.pca import Pca
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import Progress

# By the first part of a system's name; the second says what its rows are.
METHODS = {'ocsvm': one_class_svm.fit, 'svdd': kernel_svdd.fit}


@dataclasses.dataclass(frozen=True)
class PixelBoundary:
  """A fitted system of this family.

  Attributes:
    config: the whole config.
    name: 'ocsvm_image', 'ocsvm_patch', 'svdd_image' or 'svdd_patch'.
    pca: of the rows.
    boundary: of the reduced rows.
  """

  config: ml_collections.ConfigDict
  name: str
  pca: Pca
  boundary: Boundary

  @classmethod
  def fit(
    cls,
    name: str,
    config: ml_collections.ConfigDict,
    images: np.ndarray,
    progress: Progress = iter,
    regions: np.ndarray | None = None,
  ) -> 'PixelBoundary':
    """Fits a system to normal images u8[N, H, W, 3] in their regions bool[N, H, W], or all of them.

    Raises:
      UserError: a library is not installed.
    """
    del progress  # the solvers report none
    baseline = config.baseline
    method, rows_of = name.split('_')
    if rows_of == 'image':
      rows = patches.image_rows(patches.black_outside(images, regions))
    else:
      rows = patches.sample_rows(
        images,
        config.encoder.receptive_field,
        baseline.stride,
        baseline.fitted_patches,
        config.seed,
        patches.counted_patches(config, regions),
      )
    found = pca.fit(rows, baseline.components, config.seed)
    reduced = found.reduce(rows)
    kernel = kernels.choose(baseline.kernel, baseline.gamma, reduced)
    return cls(config, name, found, METHODS[method](reduced, baseline.nu, kernel))

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3] by their regions bool[N, H, W], or all of them.

    Raises:
      UserError: whole images have another size than those it was fitted to.
    """
    batch_size = self.config.score.batch_size
    if self.name.endswith('image'):
      if images[0].size != len(self.pca.mean):
        raise UserError(
          f'images of {images.shape[1]}x{images.shape[2]} pixels are not of the size that '
          f'{self.name} was fitted to: use the same config.data.image_size'
        )
      return scoring.score_images(
        lambda part: self._score_rows(patches.image_rows(part)),
        images,
        batch_size=batch_size,
        progress=progress,
        regions=regions,
      )
    k, stride = self.config.encoder.receptive_field, self.config.baseline.stride
    return scoring.score_patches(
      lambda part: self._score_rows(patches.patch_rows(part, k, stride)),
      images,
      receptive_field=k,
      stride=stride,
      batch_size=batch_size,
      progress=progress,
      regions=regions,
      share=self.config.data.region_share,
    )

  def _score_rows(self, rows: np.ndarray) -> np.ndarray:
    """Scores rows f32[..., D], f64[...]."""
    reduced = self.pca.reduce(rows)
    return self.boundary.score(reduced.reshape(-1, reduced.shape[-1])).reshape(rows.shape[:-1])

  def save(self, workdir: pathlib.Path) -> None:
    """Saves it in `workdir`: config.json and model/arrays.npz."""
    kernel, vectors, coefficients, own, offset = self.boundary
    arrays = self.pca._asdict() | {
      'name': self.name,
      'kernel': kernel.name,
      'gamma': kernel.gamma,
      'vectors': vectors,
      'coefficients': coefficients,
      'own': own,
      'offset': offset,
    }
    saved.write(workdir, self.config, arrays)

  @classmethod
  def load(cls, workdir: pathlib.Path) -> 'PixelBoundary':
    """Loads what was saved in `workdir`.

    Raises:
      UserError: there is none.
    """
    config, arrays = saved.read(workdir)
    kernel = Kernel(str(arrays['kernel']), float(arrays['gamma']))
    boundary = Boundary(
      kernel,
      arrays['vectors'],
      arrays['coefficients'],
      float(arrays['own']),
      float(arrays['offset']),
    )
    return cls(config, str(arrays['name']), Pca(arrays['mean'], arrays['components']), boundary)
