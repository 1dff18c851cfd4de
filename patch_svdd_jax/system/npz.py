"""Arrays by name as npz files, which hold numbers and texts alone: nothing in them is run."""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from patch_svdd_jax.system import files


def write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes a compressed npz, which appears whole or not at all."""
  with files.whole(path) as unfinished, unfinished.open('wb') as file:
    np.savez_compressed(file, **arrays)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns all arrays of an npz."""
  # Opened here: what is no npz leaves numpy's own file open.
  with path.open('rb') as opened, np.load(opened, allow_pickle=False) as arrays:
    return dict(arrays)


def shape(path: pathlib.Path, name: str) -> tuple[int, ...]:
  """Returns the shape of an array that `write` has written, without reading all of it."""
  with zipfile.ZipFile(path) as arrays, arrays.open(f'{name}.npy') as array:
    np.lib.format.read_magic(array)
    found: tuple[int, ...] = np.lib.format.read_array_header_1_0(array)[0]
  return found
