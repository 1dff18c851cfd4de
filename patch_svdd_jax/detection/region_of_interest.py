"""Which patches and pixels of images count: all, or those in a region of interest.

A patch counts where at least config.data.region_share of its pixels lie in the region of its image.
Only patches that count are in a memory bank, are searched for, and make maps.
"""

from collections.abc import Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data.dataset import is_fixed
from patch_svdd_jax.models import geometry
from patch_svdd_jax.models.architecture import strides_of


def counted_patches(
  config: ml_collections.ConfigDict, regions: np.ndarray | None
) -> dict[int, np.ndarray] | None:
  """Returns which patches of each receptive field count, bool[N, rows, columns]; None if all do.

  Args:
    config: the whole config.
    regions: bool[N, H, W], or None. Where they are one broadcast to many, so is what is returned.
  """
  if regions is None:
    return None
  return {
    k: geometry.patches_inside(regions, k, stride, config.data.region_share)
    for k, stride in strides_of(config).items()
  }


def rows_of_images(counted: np.ndarray) -> np.ndarray:
  """Returns how many patches of each image count, i64[N], of bool[N, rows, columns]."""
  rows: np.ndarray = np.count_nonzero(counted, axis=(1, 2)).astype(np.int64)
  return rows


def searched(counted: np.ndarray) -> np.ndarray:
  """Returns the places of patches that count among all, i64[Q], at least one, rising.

  Where each image has a region of its own, the last ones are repeated up to one of four numbers
  between powers of two: each number of queries is a program to compile.

  Args:
    counted: bool[B, rows, columns].
  """
  places = np.flatnonzero(counted)
  if not len(places):
    return np.zeros(1, np.int64)
  wanted = len(places)
  if not is_fixed(counted):
    quarter = 2 ** max(0, wanted.bit_length() - 3)
    wanted = -(-wanted // quarter) * quarter
  repeated: np.ndarray = np.pad(places, (0, wanted - len(places)), mode='edge')
  return repeated


def pixels(maps: np.ndarray, regions: np.ndarray | None) -> Sequence[np.ndarray]:
  """Returns the pixels of each of the maps f[N, H, W] that lie in its region bool[H, W]."""
  if regions is None:
    return list(maps)
  return [each[region] for each, region in zip(maps, regions, strict=True)]
