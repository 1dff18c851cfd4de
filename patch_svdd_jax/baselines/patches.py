"""Raw pixels as rows: of whole images, and of the patches of a sliding window."""

import numpy as np

from patch_svdd_jax.models import geometry


def image_rows(images: np.ndarray) -> np.ndarray:
  """Returns images u8[N, H, W, 3] as rows f32[N, H * W * 3] in [0, 1]."""
  return images.reshape(len(images), -1).astype(np.float32) / 255


def windows(images: np.ndarray, receptive_field: int, stride: int) -> np.ndarray:
  """Returns all patches of images u8[N, H, W, 3], a view u8[N, rows, columns, K, K, 3].

  Args:
    images: u8[N, H, W, 3].
    receptive_field: K in pixels.
    stride: S in pixels.

  Raises:
    UserError: the images are smaller than a patch.
  """
  geometry.grid_shape(images.shape[1:3], receptive_field, stride)
  size = (receptive_field, receptive_field)
  found = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2))
  return np.moveaxis(found[:, ::stride, ::stride], 3, -1)


def patch_rows(images: np.ndarray, receptive_field: int, stride: int) -> np.ndarray:
  """Returns the patches as rows f32[N, rows, columns, K * K * 3] in [0, 1]."""
  found = windows(images, receptive_field, stride)
  return found.reshape(*found.shape[:3], -1).astype(np.float32) / 255


def sample_rows(
  images: np.ndarray, receptive_field: int, stride: int, count: int, seed: int
) -> np.ndarray:
  """Draws different patches f32[M, K * K * 3]; all where there are no more than `count`.

  Each is as likely as any other; only those that are drawn are ever copied.
  """
  found = windows(images, receptive_field, stride)
  shape = found.shape[:3]
  total = int(np.prod(shape))
  chosen = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
  drawn = found[np.unravel_index(np.sort(chosen), shape)]
  return drawn.reshape(len(drawn), -1).astype(np.float32) / 255
