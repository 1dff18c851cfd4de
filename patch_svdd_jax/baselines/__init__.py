"""What Patch SVDD is compared with (Yi & Yoon 2020, table 1), on the detector's interface.

Each system is fitted on normal images alone, gives maps and image scores of any images, and is
saved; its class loads it. Those of `TRAINED` are the package's own trainer and detector under
another config, those of `FITTED` are fitted at once.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Protocol

import ml_collections
import numpy as np

from patch_svdd_jax.baselines import deep_svdd
from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.evaluation.training_gain import THUMBNAIL
from patch_svdd_jax.models import encoder, features
from patch_svdd_jax.system.batching import Progress


class System(Scorer, Protocol):
  """A fitted system."""

  def save(self, workdir: pathlib.Path) -> None:
    """Saves it in `workdir`/model."""


def fit_random_encoder(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  progress: Progress,
  regions: np.ndarray | None = None,
) -> Detector:
  """Returns a detector whose encoder is untrained."""
  params = encoder.init_encoder(config)
  return Detector.fit(config, params, images, step=0, progress=progress, regions=regions)


def fit_thumbnail(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  progress: Progress,
  regions: np.ndarray | None = None,
) -> Detector:
  """Returns a detector of whitened thumbnails, without an encoder."""
  return fit_random_encoder(features.thumbnails_alone(config), images, progress, regions)


# Of the config, normal images u8[N, H, W, 3], and their regions bool[N, H, W] or None.
FITTED: dict[
  str, Callable[[ml_collections.ConfigDict, np.ndarray, Progress, np.ndarray | None], System]
] = {
  **{
    name: functools.partial(PixelBoundary.fit, name)
    for name in ('ocsvm_image', 'ocsvm_patch', 'svdd_image', 'svdd_patch')
  },
  'deep_svdd': DeepSvdd.fit,
  'raw_patch': RawPatches.fit,
  THUMBNAIL: fit_thumbnail,
  'random_encoder': fit_random_encoder,
}

# The config that each is trained with, of the config that is given.
TRAINED: dict[str, Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict]] = {
  'deep_svdd_patch': deep_svdd.patch_wise,
  'patch_svdd': lambda config: config,
}

# In the order of the paper's table.
SYSTEMS = (
  'ocsvm_image',
  'ocsvm_patch',
  'svdd_image',
  'svdd_patch',
  'deep_svdd',
  'deep_svdd_patch',
  'raw_patch',
  THUMBNAIL,
  'random_encoder',
  'patch_svdd',
)


def possible(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Returns the systems that a config allows: without thumbnails where a scale has none."""
  return tuple(name for name in SYSTEMS if name != THUMBNAIL or features.has_thumbnails(config))
