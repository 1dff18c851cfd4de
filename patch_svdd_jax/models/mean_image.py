"""The mean of the training images, and its subtraction."""

import jax
import jax.numpy as jnp
import numpy as np


def training_mean(images: np.ndarray, kind: str, regions: np.ndarray | None = None) -> np.ndarray:
  """Returns the mean that is subtracted from images, in grey levels.

  Regions of interest count for the mean of a channel, which is that of the pixels inside. They do
  not for that of each pixel: patches that count reach beyond the region, where a mean is needed.

  Args:
    images: u8[N, H, W, 3].
    kind: 'image' (per pixel, the authors') or 'channel'.
    regions: bool[N, H, W], if any.

  Returns:
    f32[H, W, 3] or f32[1, 1, 3].
  """
  if regions is not None and kind == 'channel':
    sums = [
      image[region].sum(axis=0, dtype=np.float64)
      for image, region in zip(images, regions, strict=True)
    ]
    inside: np.ndarray = np.sum(sums, axis=0) / regions.sum()
    return inside.astype(np.float32).reshape(1, 1, 3)
  axes = {'image': (0,), 'channel': (0, 1, 2)}[kind]
  mean: np.ndarray = images.mean(axis=axes, keepdims=True, dtype=np.float64)[0]
  return mean.astype(np.float32)


def subtract_mean(images: jax.Array, mean: jax.Array) -> jax.Array:
  """Returns (images - mean) / 255, in float32.

  Args:
    images: [..., H, W, 3] in grey levels, uint8 or float.
    mean: f32[H, W, 3] or f32[1, 1, 3].
  """
  images = images.astype(jnp.float32)
  return (images - mean.reshape((1,) * (images.ndim - 3) + mean.shape)) / 255
