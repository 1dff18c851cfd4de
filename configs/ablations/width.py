"""Encoder width: a factor of all hidden channels."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns a quarter to four times the config's width."""
  return {
    f'width=x{factor:g}': {'encoder.width': factor * config.encoder.width}
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0)
  }
