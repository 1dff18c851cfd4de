"""Defects among the normal images, put there on purpose: what a dirty training set costs."""

import numpy as np

from patch_svdd_jax.data.dataset import Split, concatenate
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import evenly_spaced


def mix(normal: Split, test: Split, share: float) -> tuple[Split, Split]:
  """Moves defective test images among N normal ones: share * N rounded, but at least one.

  Which ones depends on the sets and the share alone, on no seed: they are spread evenly over the
  defective files, so over the types of defects, and over the normal images.

  Args:
    normal: N images to train on.
    test: images to score.
    share: 0 moves none.

  Returns:
    The images to train on, and the test images that were not moved ("no overlap" in SoftPatch).

  Raises:
    UserError: there are not as many defective test images, or none would be left.
  """
  if not share:
    return normal, test
  defective = np.flatnonzero(test.labels)
  count = max(1, int(share * len(normal) + 0.5))
  if count >= len(defective):
    raise UserError(
      f'config.data.contamination={share:g} of {len(normal)} normal images takes {count} of the '
      f'{len(defective)} defective test images, so that none is left to test: give less, or 0'
    )
  moved = defective[evenly_spaced(len(defective), count)]
  both = concatenate([normal, test.take(moved)])
  # Each stands behind the normal image in the middle of its run.
  places = np.concatenate([np.arange(len(normal)), evenly_spaced(len(normal), count) + 0.5])
  mixed = both.take(np.argsort(places, kind='stable'))
  return mixed, test.take(np.setdiff1d(np.arange(len(test)), moved))
