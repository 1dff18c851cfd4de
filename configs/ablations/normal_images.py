"""How many normal images there are to learn from."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns 4 to 64 images, and all."""
  return {f'images={count}': {'data.normal_images': count} for count in (4, 8, 16, 32, 64)} | {
    'images=all': {'data.normal_images': 0}
  }
