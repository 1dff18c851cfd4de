"""What a patch is: its receptive field K, its stride S, and the grid that covers an image.

A patch is the K x K square whose top left pixel is (i*S, j*S); the grid of an image of H x W pixels
has ((H - K) // S + 1) x ((W - K) // S + 1) patches.
"""

import math

import numpy as np

from patch_svdd_jax.errors import UserError

# (height, width) in pixels.
ImageSize = tuple[int, ...]


def grid_extent(extent: int, receptive_field: int, stride: int) -> int:
  """Returns the number of patches along an axis of `extent` pixels.

  Raises:
    UserError: the axis is shorter than one patch.
  """
  if extent < receptive_field:
    raise UserError(
      f'an image axis of {extent} pixels cannot hold a {receptive_field}-pixel patch: '
      f'use larger images (config.data.image_size) or smaller scales (config.encoder.scales)'
    )
  return (extent - receptive_field) // stride + 1


def grid_shape(image_size: ImageSize, receptive_field: int, stride: int) -> tuple[int, int]:
  """Returns the patch grid (rows, columns) of an image of (height, width) pixels."""
  height, width = image_size
  return (
    grid_extent(height, receptive_field, stride),
    grid_extent(width, receptive_field, stride),
  )


def patch_count(image_size: ImageSize, receptive_field: int, stride: int) -> int:
  """Returns how many patches an image has; see `grid_shape`."""
  rows, columns = grid_shape(image_size, receptive_field, stride)
  return rows * columns


def patches_inside(
  regions: np.ndarray, receptive_field: int, stride: int, share: float
) -> np.ndarray:
  """Returns the patches of the grid that lie in a region: a share of their pixels does.

  Args:
    regions: bool[..., H, W]. Where they are one broadcast to many, so is what is returned.
    receptive_field: K, in pixels.
    stride: S, in pixels.
    share: of the K * K pixels, above 0.

  Returns:
    bool[..., rows, columns] of `grid_shape`.

  Raises:
    UserError: the image is smaller than a patch.
  """
  grid = grid_shape(regions.shape[-2:], receptive_field, stride)
  if regions.ndim > 2:
    if len(regions) and not regions.strides[0]:
      one = patches_inside(regions[0], receptive_field, stride, share)
      return np.broadcast_to(one, (len(regions), *one.shape))
    inside = np.zeros((*regions.shape[:-2], *grid), bool)
    for index, region in enumerate(regions):
      inside[index] = patches_inside(region, receptive_field, stride, share)
    return inside
  # [i, j] is how many of the pixels above row i, left of column j are in the region.
  sums = np.pad(regions.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
  rows, columns = (np.arange(count)[:, None] * stride for count in grid)
  columns = columns.T
  below, right = rows + receptive_field, columns + receptive_field
  counts = sums[below, right] - sums[rows, right] - sums[below, columns] + sums[rows, columns]
  # Divided, not multiplied: 7 / 100 is the nearest number to .07, 100 * .07 is above 7.
  counted: np.ndarray = counts / receptive_field**2 >= share
  return counted


def shorter_side(image_size: ImageSize) -> float:
  """Returns the shorter of the sides that are known, in pixels: 0 is one the images will tell."""
  return min((side for side in image_size if side), default=math.inf)


def pooling_weights(
  regions: np.ndarray, extent: int, outputs: int, field: int, step: int
) -> np.ndarray:
  """Returns the mean over the outputs that see nothing but a region, along one axis, as a matrix.

  Args:
    regions: i[R], the first pixel of each region.
    extent: pixels of a region.
    outputs: how many there are along the axis.
    field: pixels that an output sees, at most `extent`.
    step: pixels from what one output sees to what the next one does.

  Returns:
    f32[R, outputs], whose rows sum to 1.
  """
  first, begins = regions[:, None], np.arange(outputs) * step
  inside = (first <= begins) & (begins + field <= first + extent)
  weights: np.ndarray = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
  return weights


def coverage_weights(extent: int, receptive_field: int, stride: int) -> np.ndarray:
  """Returns the mean over the patches that cover a pixel, along one axis, as a matrix.

  A patch is a square, so the mean over the patches that cover a pixel is the mean along the rows of
  the mean along the columns: `rows @ patch_scores @ columns.T` is the whole pixel map.

  Pixels past the last patch, where the stride does not divide the image, take the value of the
  nearest pixel that is covered; with a stride larger than K so do the pixels between patches.

  Args:
    extent: pixels along the axis.
    receptive_field: K, in pixels.
    stride: S, in pixels.

  Returns:
    f32[extent, grid_extent(extent, K, S)], whose rows sum to 1.
  """
  first = np.arange(grid_extent(extent, receptive_field, stride)) * stride
  pixel = np.arange(extent)[:, None]
  covers = (first <= pixel) & (pixel < first + receptive_field)
  covered = np.flatnonzero(covers.any(axis=1))
  nearest = covered[np.abs(pixel - covered).argmin(axis=1)]
  covers = covers[nearest]
  weights: np.ndarray = (covers / covers.sum(axis=1, keepdims=True)).astype(np.float32)
  return weights
