"""Pixels between the patches that are scored."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the config's strides, halved and doubled."""
  return {
    f'strides=x{factor:g}': {
      'score.strides': tuple(max(2, int(factor * stride)) for stride in config.score.strides)
    }
    for factor in (0.5, 1, 2, 4)
  }
