"""Lambda, the weight of the neighbour loss."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns no neighbour loss, and 1e-4 to 1."""
  return {
    f'lambda={weight:g}': {'train.svdd_weight': weight}
    for weight in (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
  }
