"""How the encoder's parameters are drawn before training."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns both ways."""
  return {name: {'encoder.init': name} for name in ('uniform', 'he')}
