"""The centre of patch-wise Deep SVDD: the mean embedding of normal patches, untrained.

It stays where it is while the encoder learns (Ruff et al. 2018, section 3.1): a function of the
config, its seed and the images, computed anew by whoever resumes a run.
"""

import jax.numpy as jnp
import ml_collections
import numpy as np

from patch_svdd_jax.models import architecture, embedding, encoder, judged_patches
from patch_svdd_jax.models.architecture import scale_name
from patch_svdd_jax.system import sharding


def initial(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  mean: np.ndarray,
  regions: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Returns the centre f32[D] of each scale, by name; none unless `config.train.svdd` has one.

  Patches half a receptive field apart are averaged, those that count where there are regions.

  Args:
    config: the whole config.
    images: u8[N, H, W, 3], normal images.
    mean: of `mean_image.training_mean`.
    regions: bool[N, H, W], if any.

  Raises:
    UserError: no patch of some scale counts.
  """
  if config.train.svdd != 'centre':
    return {}
  arch = architecture.from_config(config.encoder)
  strides = {k: max(1, k // 2 // arch.native_stride) * arch.native_stride for k in arch.scales}
  rows = embedding.embed_to_host(
    arch,
    sharding.replicate(encoder.init_encoder(config)),
    sharding.replicate(jnp.asarray(mean)),
    images,
    strides,
    batch_size=config.score.batch_size,
    tile=config.score.tile,
  )
  if regions is not None:
    rows = {
      k: embeddings[judged_patches.inside(regions, k, strides[k], config.data.region_share)]
      for k, embeddings in rows.items()
    }
  return {
    scale_name(k): embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    for k, embeddings in rows.items()
  }


def zeros(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """Returns zeros of the same shapes, for ahead-of-time compilation."""
  if config.train.svdd != 'centre':
    return {}
  return {
    scale_name(k): np.zeros(config.encoder.embed_dim, np.float32) for k in config.encoder.scales
  }
