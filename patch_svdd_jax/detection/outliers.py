"""How outlying the rows of a memory bank are: a few of them may be of defects nobody has noticed.

A defect among the normal images puts its patches into the memory bank, and the next one like it
passes. SoftPatch (Jiang et al., NeurIPS 2022) therefore drops the 15 % most outlying patches before
a coreset is chosen, compared with the other images' patches at the same position. Objects that lie
anywhere, and textures, have no same position: here a row is compared with all rows, but not with
those of its own image, whose patches overlap, nor with those of images that were taken just before
and after, which may show the same defect.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from patch_svdd_jax.search import nearest
from patch_svdd_jax.search.memory_bank import HostBank, MemoryBank
from patch_svdd_jax.search.screening import Screen
from patch_svdd_jax.system.batching import Progress, evenly_spaced

# Runs of images, none of which is compared with its own.
FOLDS = 10

# Makes a bank of rows f32[N, D], with the screen of another one or with its own.
Place = Callable[[np.ndarray, Screen | None], MemoryBank | HostBank]


def outlyingness(rows: np.ndarray, place: Place, progress: Progress = iter) -> np.ndarray:
  """Returns the distance of each row to the nearest row of the images of other folds.

  The cost is that of a search for all rows in nine tenths of them. All folds' banks are of one
  size, and so are their queries: one program searches them all.

  Args:
    rows: f32[N, P, D], the embeddings of the P patches of each of N images, N >= 2.
    place: makes a bank of some of them.
    progress: wraps the iterable of folds.

  Returns:
    f32[N, P].
  """
  count, _, dim = rows.shape
  folds = min(FOLDS, count)
  fold_of = np.arange(count) * folds // count
  largest = -(-count // folds)
  found = np.empty(rows.shape[:2], np.float32)
  screen: Screen | None = None
  for fold in progress(range(folds)):
    own, others = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
    others = others[evenly_spaced(len(others), count - largest)]
    bank = place(rows[others].reshape(-1, dim), screen)
    screen = bank.screen
    queries: Any = rows[np.resize(own, largest)].reshape(-1, dim)
    distances = np.asarray(nearest.search(queries, bank).distances)
    found[own] = distances.reshape(largest, -1)[: len(own)]
  return found


def inliers(
  rows: np.ndarray, counts: np.ndarray, share: float, place: Place, progress: Progress = iter
) -> np.ndarray:
  """Returns whether each row is kept, bool[M]: all but the most outlying share, rounded.

  Of a single image all are kept: there is nothing to compare it with.

  Args:
    rows: f32[M, D], image after image.
    counts: i64[N], how many rows each image has.
    share: of the M rows, 0 to below 1.
    place: as of `outlyingness`, and so is what follows.
    progress: wraps the iterable of folds.
  """
  kept = np.ones(len(rows), bool)
  counts = counts[counts > 0]
  if share and len(counts) > 1:
    numbers = numbers_of_images(counts)
    far = np.empty(len(rows), np.float32)
    # A view where all images have as many: a copy would take as much memory again.
    alike = numbers.size == len(rows)
    of_images = rows.reshape(*numbers.shape, -1) if alike else rows[numbers]
    far[numbers] = outlyingness(of_images, place, progress)
    kept[np.argsort(-far, kind='stable')[: round(share * len(rows))]] = False
  return kept


def numbers_of_images(counts: np.ndarray) -> np.ndarray:
  """Returns the numbers of the rows of each image, i64[N, P], P of the image that has most.

  Those of an image with fewer are repeated: the nearest row is as near twice.

  Args:
    counts: i64[N], how many rows each image has, at least 1; image after image.
  """
  first = np.cumsum(counts) - counts
  numbers: np.ndarray = first[:, None] + np.arange(counts.max()) % counts[:, None]
  return numbers
