"""Normal images that are kept from training, by which a trained encoder can be judged."""

import numpy as np

from patch_svdd_jax.data.dataset import Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import evenly_spaced


def divide(split: Split, share: float) -> tuple[Split, Split]:
  """Divides images into those to train on and those held out: share * N rounded, at least one.

  Which ones depends on N and the share alone, on no seed, so that runs can be compared. They are
  spread evenly over the files in their order, since images that were taken one after another are
  often alike: a run of them at one end would be another kind of image. For the same reason frames
  of a video are no good held-out images, as their neighbours are trained on.

  Args:
    split: N normal images.
    share: 0 holds none out.

  Raises:
    UserError: no image is left to train on.
  """
  count = len(split)
  held = evenly_spaced(count, max(1, int(share * count + 0.5)) if share else 0)
  if share and len(held) == count:
    raise UserError(
      f'config.data.held_out={share:g} of {count} normal image{"s" * (count > 1)} leaves none to '
      f'train on: give less, or 0'
    )
  return split.take(np.setdiff1d(np.arange(count), held)), split.take(held)
