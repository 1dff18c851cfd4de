"""Features that describe a patch; all but the embedding alone are brought to one scale."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns each block of features by itself, and those that go together; whitening as it is."""
  return {
    '+'.join(names): {'score.features': names}
    for names in (
      ('embedding',),
      ('hidden',),
      ('thumbnail',),
      ('embedding', 'hidden'),
      ('hidden', 'thumbnail'),
      ('embedding', 'hidden', 'thumbnail'),
    )
  }
