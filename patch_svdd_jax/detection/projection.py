"""Fits the affine map that brings the features of patches to one scale, and whitens them.

Each block of features is divided by the root of its total variance, so that each has the same say
in a distance. Whitening then divides each principal component by its standard deviation: distances
between raw features are those along the few directions in which normal patches vary most, which
hide a defect along all others. Directions of hardly any variance would be noise, so a share of the
mean variance is added to all (shrinkage as of Ledoit & Wolf 2004, by a constant; docs/accuracy.md
compares others).
"""

import jax
import ml_collections
import numpy as np

from patch_svdd_jax.detection import region_of_interest
from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.architecture import scale_name, strides_of
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.models.features import PROJECTION
from patch_svdd_jax.system.batching import evenly_spaced
from patch_svdd_jax.system.sharding import replicate

# What is added to all variances, as a share of their mean.
SHRINKAGE = 1.0
# Images that it is fitted to at most.
IMAGES = 64
# The variance of a constant block is what rounding leaves: less than this share of its squares.
ROUNDING = 1e-12


class Moments:
  """Means and covariances of rows, which come part by part."""

  def __init__(self) -> None:
    self.count, self.shift = 0, np.zeros(0)
    self.sum, self.products = np.zeros(0), np.zeros(0)

  def add(self, rows: np.ndarray) -> None:
    """Adds rows f32[N, F]; there may be none."""
    if not len(rows):
      return
    if not self.count:
      # About a row of theirs hardly any digits cancel.
      self.shift = rows[0].astype(np.float64)
      self.sum, self.products = np.zeros(len(self.shift)), np.zeros((len(self.shift),) * 2)
    shifted = rows - self.shift
    self.count += len(rows)
    self.sum += shifted.sum(axis=0)
    self.products += shifted.T @ shifted

  @property
  def mean(self) -> np.ndarray:
    """f64[F]."""
    return self.shift + self.sum / self.count

  @property
  def covariance(self) -> np.ndarray:
    """f64[F, F]."""
    mean = self.sum / self.count
    return self.products / self.count - np.outer(mean, mean)


def fit(
  config: ml_collections.ConfigDict,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  regions: np.ndarray | None = None,
) -> Params:
  """Returns the encoder's parameters with the projection that config.score asks for, or without.

  It is fitted to all patches that count of some images, evenly spread. Every process does so alike.

  Args:
    config: the whole config.
    params: the encoder's, replicated; a projection among them is dropped.
    mean: f32[H, W, 3] or f32[1, 1, 3], replicated.
    images: u8[N, H, W, 3], normal images.
    regions: bool[N, H, W], see `region_of_interest`; None: all patches count.
  """
  described = features.from_config(config.score)
  encoder = {name: value for name, value in params.items() if name != PROJECTION}
  if not described.projected:
    return encoder
  arch, strides = architecture.from_config(config.encoder), strides_of(config)
  moments = {k: Moments() for k in strides}
  chosen = evenly_spaced(len(images), IMAGES)
  counted = region_of_interest.counted_patches(config, regions)
  taken = 0
  for part in embedding.embed_by_batches(
    arch,
    encoder,
    mean,
    images[chosen],
    strides,
    batch_size=config.score.batch_size,
    tile=config.score.tile,
    features=described.raw,
  ):
    for k, of_images in part.items():
      for number, rows in zip(chosen[taken:], of_images, strict=False):
        moments[k].add(rows[counted[k][number].ravel()] if counted else rows)
    taken += len(next(iter(part.values())))
  fitted = {
    scale_name(k): solve(each.mean, each.covariance, described.widths(arch), described.components)
    for k, each in moments.items()
  }
  return encoder | {PROJECTION: replicate(fitted)}


def solve(
  mean: np.ndarray, covariance: np.ndarray, widths: list[int], components: int
) -> dict[str, np.ndarray]:
  """Returns the 'mean' f32[F] and the 'matrix' f32[F, D] of (x - mean) @ matrix.

  With s_b = (sum of the variances of block b)^-1/2, and S the diagonal matrix of each number's s_b,
  the matrix is S; whitened, it is S V (l + mean(l))^-1/2 of the largest eigenvalues l of
  S covariance S, and their eigenvectors V.

  Args:
    mean: f64[F].
    covariance: f64[F, F].
    widths: of the blocks, F together.
    components: how many eigenvectors are kept at most; 0: not whitened.
  """
  variances, squares = (
    np.add.reduceat(values, np.cumsum([0, *widths[:-1]]))
    for values in (np.diag(covariance), mean**2)
  )
  constant = variances <= ROUNDING * (variances + squares)
  scales = np.repeat(np.where(constant, 0, np.where(constant, 1, variances) ** -0.5), widths)
  matrix = np.diag(scales)
  if components:
    values, vectors = np.linalg.eigh(scales[:, None] * covariance * scales)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Eigenvectors have no sign of their own: their largest number is above zero.
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
    deviations = np.sqrt(np.maximum(values, 0) + SHRINKAGE * max(values.mean(), 0))
    deviations[deviations == 0] = 1  # all blocks are constant
    matrix = (scales[:, None] * vectors / deviations)[:, :components]
  return {'mean': mean.astype(np.float32), 'matrix': matrix.astype(np.float32)}
