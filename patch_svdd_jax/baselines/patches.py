"""Raw pixels as rows: of whole images, and of the patches of a sliding window."""

import ml_collections
import numpy as np

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import geometry


def image_rows(images: np.ndarray) -> np.ndarray:
  """Returns images u8[N, H, W, 3] as rows f32[N, H * W * 3] in [0, 1]."""
  return images.reshape(len(images), -1).astype(np.float32) / 255


def black_outside(images: np.ndarray, regions: np.ndarray | None) -> np.ndarray:
  """Returns images u8[N, H, W, 3], black outside of regions bool[N, H, W] where they have any."""
  if regions is None:
    return images
  black: np.ndarray = images * regions[..., None]
  return black


def counted_patches(
  config: ml_collections.ConfigDict, regions: np.ndarray | None
) -> np.ndarray | None:
  """Returns which patches of a baseline count, bool[N, rows, columns]; None where all do.

  Raises:
    UserError: none does.
  """
  if regions is None:
    return None
  k, stride = config.encoder.receptive_field, config.baseline.stride
  counted = geometry.patches_inside(regions, k, stride, config.data.region_share)
  if not counted.any():
    raise UserError(f'no patch of {k} pixels lies in the region of interest: enlarge the region')
  return counted


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
  images: np.ndarray,
  receptive_field: int,
  stride: int,
  count: int,
  seed: int,
  counted: np.ndarray | None = None,
) -> np.ndarray:
  """Draws different patches f32[M, K * K * 3]; all where there are no more than `count`.

  Each is as likely as any other; only those that are drawn are ever copied. With `counted`,
  bool[N, rows, columns], they are of these patches.
  """
  found = windows(images, receptive_field, stride)
  shape = found.shape[:3]
  total = int(np.prod(shape) if counted is None else np.count_nonzero(counted))
  chosen = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False))
  if counted is not None:
    chosen = np.flatnonzero(counted)[chosen]
  drawn = found[np.unravel_index(chosen, shape)]
  return drawn.reshape(len(drawn), -1).astype(np.float32) / 255
