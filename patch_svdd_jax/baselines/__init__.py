"""What Patch SVDD is compared with (Yi & Yoon 2020, table 1), on the detector's interface.

Each system is fitted on normal images alone, gives maps and image scores of any images, and is
saved and loaded. Those of `TRAINED` are the package's own trainer and detector under another
config, those of `FITTED` are fitted at once.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import ml_collections
import numpy as np

from patch_svdd_jax.baselines import deep_svdd
from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation.evaluate import Scorer
from patch_svdd_jax.models import encoder
from patch_svdd_jax.system.batching import Progress


class System(Scorer, Protocol):
  """A fitted system."""

  def save(self, workdir: pathlib.Path) -> None:
    """Saves it in `workdir`/model."""


class Family(NamedTuple):
  """How a system is made and read.

  Attributes:
    fit: of the config and normal images u8[N, H, W, 3].
    load: of the workdir in which it was saved.
  """

  fit: Callable[[ml_collections.ConfigDict, np.ndarray, Progress], System]
  load: Callable[[pathlib.Path], System]


def fit_random_encoder(
  config: ml_collections.ConfigDict, images: np.ndarray, progress: Progress
) -> Detector:
  """A detector whose encoder is untrained."""
  params = encoder.init_encoder(config)
  return Detector.fit(config, params, images, step=0, progress=progress)


FITTED = {
  'ocsvm_image': Family(functools.partial(PixelBoundary.fit, 'ocsvm_image'), PixelBoundary.load),
  'ocsvm_patch': Family(functools.partial(PixelBoundary.fit, 'ocsvm_patch'), PixelBoundary.load),
  'svdd_image': Family(functools.partial(PixelBoundary.fit, 'svdd_image'), PixelBoundary.load),
  'svdd_patch': Family(functools.partial(PixelBoundary.fit, 'svdd_patch'), PixelBoundary.load),
  'deep_svdd': Family(DeepSvdd.fit, DeepSvdd.load),
  'raw_patch': Family(RawPatches.fit, RawPatches.load),
  'random_encoder': Family(fit_random_encoder, Detector.load),
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
  'random_encoder',
  'patch_svdd',
)


def load(name: str, workdir: pathlib.Path) -> System:
  """The system that was saved in a workdir.

  Raises:
    UserError: there is none.
  """
  return FITTED[name].load(workdir) if name in FITTED else Detector.load(workdir)
