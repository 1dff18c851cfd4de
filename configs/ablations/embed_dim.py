"""Embedding dimension D."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns 16 to 256 dimensions."""
  return {f'D={dim}': {'encoder.embed_dim': dim} for dim in (16, 32, 64, 128, 256)}
