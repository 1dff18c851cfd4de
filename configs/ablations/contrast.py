"""The contrastive loss of neighbours: its weight and its temperature."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns none, weights of .1 to 3, and with a weight of 1 temperatures of .05 to 1."""
  weights = {
    f'weight={weight:g}': {'train.contrast': weight} for weight in (0.0, 0.1, 0.3, 1.0, 3.0)
  }
  temperatures = {
    f'temperature={temperature:g}': {
      'train.contrast': 1.0,
      'train.contrast_temperature': temperature,
    }
    for temperature in (0.05, 0.1, 0.5, 1.0)
  }
  at_default: dict[str, Any] = {'train.contrast_temperature': 0.2}
  return {name: row | at_default for name, row in weights.items()} | temperatures
