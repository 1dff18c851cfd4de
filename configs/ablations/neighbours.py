"""How many nearest normal patches a patch is compared with."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns one neighbour to nine, whose mean distance is the score."""
  return {f'{count}-nearest': {'score.neighbours': count} for count in (1, 3, 5, 9)}
