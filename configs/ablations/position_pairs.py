"""What becomes of position pairs that reach out of the image; the authors clip."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns pairs of patches that are clipped to the image, and such as lie inside."""
  return {
    kind: {'train.pairs': 'patches', 'train.position_pairs': kind} for kind in ('clip', 'valid')
  }
