"""Encoder depth: how many convolutions map K x K pixels to one embedding."""

from typing import Any

import ml_collections

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, features


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the depths out of 2, 4, 6, 8, 10, 12, 15 that the config allows."""
  return {
    f'depth={depth}': {'encoder.depth': depth}
    for depth in (2, 4, 6, 8, 10, 12, 15)
    if fits(config, depth)
  }


def fits(config: ml_collections.ConfigDict, depth: int) -> bool:
  """Returns whether there is an encoder of this depth, with the layers that describe patches."""
  deeper = config.copy_and_resolve_references()
  deeper.encoder.depth = depth
  try:
    architecture.from_config(deeper.encoder)
    features.check(deeper)
  except UserError:
    return False
  return True
