"""Pairs of patches, each encoded by itself, or out of densely encoded crops."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns both ways, for as many pairs a step as the config says."""
  return {kind: {'train.pairs': kind} for kind in ('patches', 'crops')}
