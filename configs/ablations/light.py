"""Light: varied in training, removed from images, both, or neither."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns light as it is, shift, gain, both, and standardised images."""
  kept: dict[str, Any] = {'data.light': 'kept'}
  none = {'train.augment.brightness': 0.0, 'train.augment.gain': 0.0}
  shift, gain = {'train.augment.brightness': 0.08}, {'train.augment.gain': 0.1}
  standardised = {'data.light': 'standardised'}
  return {
    'as-it-is': kept | none,
    'shift': kept | none | shift,
    'gain': kept | none | gain,
    'shift+gain': kept | shift | gain,
    'standardised': standardised | none,
    'standardised+shift+gain': standardised | shift | gain,
  }
