"""Whether the last layer of the position classifier learns; the authors' does not."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns a frozen and a trained last layer."""
  return {
    'frozen': {'train.train_last_layer': False},
    'trained': {'train.train_last_layer': True},
  }
