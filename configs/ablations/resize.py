"""The filter by which images are resized; the authors' was nearest."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns every filter."""
  return {
    name: {'data.resize': name} for name in ('nearest', 'box', 'bilinear', 'bicubic', 'lanczos')
  }
