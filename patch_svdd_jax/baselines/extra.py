"""Libraries that only the baselines need, and who wants no baselines need not install."""

import importlib
from typing import Any

from patch_svdd_jax.errors import UserError


def import_module(name: str) -> Any:
  """Imports a module of the `baselines` extra.

  Raises:
    UserError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"{name.partition('.')[0]} is missing: pip install 'patch_svdd_jax[baselines]'"
    ) from error
