"""Patch SVDD in JAX and Flax: anomaly detection and segmentation from normal images only.

J. Yi and S. Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from patch_svdd_jax.api import PatchSVDD

__all__ = ['PatchSVDD', '__version__']
__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  # The command line asks for a version without waiting for jax.
  if name == 'PatchSVDD':
    from patch_svdd_jax.api import PatchSVDD

    return PatchSVDD
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
