"""Patch SVDD in JAX and Flax: anomaly detection and segmentation from normal images only.

J. Yi and S. Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020.
"""

# As of `typing`, which is not imported: signals are taken after this file.
TYPE_CHECKING = False

if TYPE_CHECKING:
  from typing import Any

  from patch_svdd_jax.api import PatchSVDD
  from patch_svdd_jax.errors import UserError
  from patch_svdd_jax.search import memory_bank, nearest

__all__ = ['PatchSVDD', 'UserError', '__version__', 'memory_bank', 'nearest']
__version__ = '0.1.0'

# Imported when first used: the command line asks for a version without waiting for jax.
_MODULES = {
  'PatchSVDD': 'patch_svdd_jax.api',
  'UserError': 'patch_svdd_jax.errors',
  'memory_bank': 'patch_svdd_jax.search',
  'nearest': 'patch_svdd_jax.search',
}

if not TYPE_CHECKING:  # to a type checker it would say that every name is there

  def __getattr__(name: str) -> 'Any':
    if name not in _MODULES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # As `from MODULE import NAME`, which imports NAME where it is itself a module.
    return getattr(__import__(_MODULES[name], fromlist=[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
