"""Whether features are whitened, and how many principal components are kept."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the features as they are, and 16 to 256 components of them."""
  whitened = {
    f'{count}-components': {'score.whiten': True, 'score.components': count}
    for count in (16, 32, 64, 128, 256)
  }
  return {'not-whitened': {'score.whiten': False}} | whitened
