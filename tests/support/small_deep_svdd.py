"""A Deep SVDD that compiles and trains in a second, which several tests share."""

import contextlib
from collections.abc import Iterator

import pytest

from patch_svdd_jax.baselines import deep_svdd

SIZES = {
  'SIDE': 20,
  'CHANNELS': (4, 6),
  'EMBED_DIM': 5,
  'BATCH_SIZE': 4,
  'STEPS_PER_CALL': 2,
  'EMBEDDED_TOGETHER': 4,
}


@contextlib.contextmanager
def small() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    for name, value in SIZES.items():
      patch.setattr(deep_svdd, name, value)
    yield
