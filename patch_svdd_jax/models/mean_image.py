"""The mean of the training images, and its subtraction."""

import jax
import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.errors import UserError


def training_mean(images: np.ndarray, kind: str) -> np.ndarray:
  """The mean that is subtracted from images, in grey levels.

  Args:
    images: u8[N, H, W, 3].
    kind: 'image' (per pixel, the authors') or 'channel'.

  Returns:
    f32[H, W, 3] or f32[1, 1, 3].
  """
  mean: np.ndarray
  if kind == 'image':
    mean = images.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
  if kind == 'channel':
    mean = images.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)[None, None]
    return mean
  raise UserError(f"config.train.mean={kind!r}: give 'image' or 'channel'")


def subtract_mean(images: jax.Array, mean: jax.Array) -> jax.Array:
  """(images - mean) / 255, in float32.

  Args:
    images: [..., H, W, 3] in grey levels, uint8 or float.
    mean: f32[H, W, 3] or f32[1, 1, 3].
  """
  images = images.astype(jnp.float32)
  return (images - mean.reshape((1,) * (images.ndim - 3) + mean.shape)) / 255
