"""Arrays by name as npz files, which hold numbers and texts alone: nothing in them is run."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from patch_svdd_jax.system import files


def write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes a compressed npz, which appears whole or not at all."""
  with files.whole(path) as unfinished, unfinished.open('wb') as file:
    np.savez_compressed(file, **arrays)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an npz."""
  # Opened here: what is no npz leaves numpy's own file open.
  with path.open('rb') as opened, np.load(opened, allow_pickle=False) as arrays:
    return dict(arrays)
