"""The nearest raw normal patch: what the search finds without any encoder.

A patch's embedding is its pixels, K x K with K = config.encoder.receptive_field, at strides of
config.baseline.stride. The search takes no more than 1,024 dimensions and is slow for so many, so
they are reduced by PCA to config.baseline.components; where there are as many as pixels times
channels, distances are those of the pixels themselves, which a rotation does not change.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np

from patch_svdd_jax.baselines import patches, pca, saved, scoring
from patch_svdd_jax.baselines.pca import Pca
from patch_svdd_jax.detection import bank_building
from patch_svdd_jax.detection.bank_building import Bank
from patch_svdd_jax.detection.scores import Scores
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system.batching import Progress


def embed(reduction: Pca, images: np.ndarray, receptive_field: int, stride: int) -> np.ndarray:
  """Returns the reduced patches f32[N, rows, columns, C] of images u8[N, H, W, 3].

  Args:
    reduction: of the patches.
    images: u8[N, H, W, 3].
    receptive_field: K in pixels.
    stride: S in pixels.
  """
  rows = patches.patch_rows(images, receptive_field, stride)
  return reduction.reduce(rows).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RawPatches:
  """A fitted system.

  Attributes:
    config: the whole config.
    pca: of the patches.
    bank: the normal patches, reduced.
  """

  config: ml_collections.ConfigDict
  pca: Pca
  bank: Bank

  @classmethod
  def fit(
    cls,
    config: ml_collections.ConfigDict,
    images: np.ndarray,
    progress: Progress = iter,
    regions: np.ndarray | None = None,
  ) -> 'RawPatches':
    """Remembers the patches of normal images u8[N, H, W, 3], those in their regions bool[N, H, W].

    Raises:
      UserError: images are smaller than a patch, or scikit-learn is
        not installed.
    """
    k, stride = config.encoder.receptive_field, config.baseline.stride
    counted = patches.counted_patches(config, regions)
    wanted, seed = config.baseline.fitted_patches, config.seed
    sample = patches.sample_rows(images, k, stride, wanted, seed, counted)
    found = pca.fit(sample, config.baseline.components, config.seed)
    batch = config.score.batch_size
    parts = [
      embed(found, images[first : first + batch], k, stride)
      for first in progress(range(0, len(images), batch))
    ]
    rows = np.concatenate(parts)
    rows = rows.reshape(-1, len(found.components)) if counted is None else rows[counted]
    return cls(config, found, bank_building.place(rows))

  def score(
    self, images: np.ndarray, progress: Progress = iter, regions: np.ndarray | None = None
  ) -> Scores:
    """Scores images u8[N, H, W, 3] of any size by the distances to the nearest normal patches.

    With regions bool[N, H, W] only patches in these count.
    """
    k, stride = self.config.encoder.receptive_field, self.config.baseline.stride

    def distances(part: np.ndarray) -> np.ndarray:
      queries = embed(self.pca, part, k, stride)
      found = nearest.search(jnp.asarray(queries.reshape(-1, queries.shape[-1])), self.bank)
      return np.asarray(found.distances).reshape(queries.shape[:3])

    return scoring.score_patches(
      distances,
      images,
      receptive_field=k,
      stride=stride,
      batch_size=self.config.score.batch_size,
      progress=progress,
      regions=regions,
      share=self.config.data.region_share,
    )

  def save(self, workdir: pathlib.Path) -> None:
    """Saves it in `workdir`: config.json and model/arrays.npz."""
    saved.write(workdir, self.config, self.pca._asdict() | {'rows': memory_bank.to_rows(self.bank)})

  @classmethod
  def load(cls, workdir: pathlib.Path) -> 'RawPatches':
    """Loads what was saved in `workdir`.

    Raises:
      UserError: there is none.
    """
    config, arrays = saved.read(workdir)
    bank = bank_building.place(arrays['rows'])
    return cls(config, Pca(arrays['mean'], arrays['components']), bank)
