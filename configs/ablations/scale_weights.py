"""How much each scale's map counts in the product; the scales' own maps are in every table."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the product as it is, and with the exponent of each scale lowered in turn."""
  scales = config.encoder.scales
  rows: dict[str, dict[str, Any]] = {'all-1': {'score.scale_weights': ()}}
  for index, scale in enumerate(scales):
    for weight in (0.5, 0.25):
      weights = tuple(weight if other == index else 1.0 for other in range(len(scales)))
      rows[f'K={scale}-weight={weight:g}'] = {'score.scale_weights': weights}
  return rows
