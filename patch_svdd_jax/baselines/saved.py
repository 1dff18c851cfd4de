"""How a baseline is kept in a workdir: config.json and model/arrays.npz, which hold no code."""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from patch_svdd_jax import configuration
from patch_svdd_jax.detection.detector import FOLDER
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import npz

FILE = 'arrays.npz'


def write(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, arrays: Mapping[str, Any]
) -> None:
  """Writes the config and the arrays; the arrays last."""
  configuration.save(config, workdir)
  npz.write(workdir / FOLDER / FILE, arrays)


def read(workdir: pathlib.Path) -> tuple[ml_collections.ConfigDict, dict[str, np.ndarray]]:
  """Returns the config and the arrays.

  Raises:
    UserError: they are not there, or cannot be read.
  """
  path = workdir / FOLDER / FILE
  if not path.exists():
    raise UserError(f'no fitted baseline in {path.parent}: run `patch-svdd baselines` first')
  try:
    arrays = npz.read(path)
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} cannot be read ({error}): remove it and fit again') from error
  return configuration.load(workdir), arrays
