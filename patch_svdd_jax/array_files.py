"""Arrays by name as npz files, which hold numbers and texts alone: nothing in them is run."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes a compressed npz, which appears whole or not at all."""
  unfinished = path.with_suffix('.tmp')
  try:
    with unfinished.open('wb') as file:
      np.savez_compressed(file, **arrays)
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an npz."""
  # Opened here: what is no npz leaves numpy's own file open.
  with path.open('rb') as opened, np.load(opened, allow_pickle=False) as arrays:
    return dict(arrays)
