"""The losses (Yi & Yoon 2020, table 4): L_SVDD, L_SVDD', L_SSL, and L_SVDD' with L_SSL."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns each loss alone, and both with the config's lambda."""
  alone = {'train.position_weight': 0.0, 'train.svdd_weight': 1.0}
  rows: dict[str, dict[str, Any]] = {
    'L_SVDD': {'train.svdd': 'centre'} | alone,
    'L_SVDD_near': {'train.svdd': 'neighbour'} | alone,
    'L_SSL': {'train.position_weight': 1.0, 'train.svdd_weight': 0.0},
    'L_SVDD_near+L_SSL': {'train.position_weight': 1.0, 'train.svdd': 'neighbour'},
  }
  return {name: row | {'train.contrast': 0.0} for name, row in rows.items()}
