"""Scales and hierarchy (Yi & Yoon 2020, figure 8); K is that of the lowest level."""

from typing import Any

import ml_collections


def get_rows(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns 2K in one level, 2K on K, K, both, and 4K besides; the sum's map is in every table.

  The encoder of one level is the paper's: three 5x5 convolutions of stride 2, and a last one. Pairs
  are of patches, since small images have no crops with room for two patches of 4K.
  """
  k = config.encoder.receptive_field
  large, small = config.score.strides
  patches = {'train.pairs': 'patches', 'train.batch_size': 64}
  rows = {
    '2K-one-level': {
      'encoder.receptive_field': 2 * k,
      'encoder.scales': (2 * k,),
      'encoder.depth': 4 if k == 32 else 3,
      'encoder.channels': (64, 64, 128) if k == 32 else (64, 128),
      'encoder.strided_layers': 3 if k == 32 else 2,
      'encoder.strided_kernel': 5,
      'score.strides': (large,),
    },
    '2K-on-K': {'encoder.scales': (2 * k,), 'score.strides': (large,)},
    'K': {'encoder.scales': (k,), 'score.strides': (small,)},
    '2K+K': {'encoder.scales': (2 * k, k), 'score.strides': (large, small)},
    '4K+2K+K': {
      'encoder.scales': (4 * k, 2 * k, k),
      'score.strides': (large, large, small),
    },
  }
  return {name: row | patches for name, row in rows.items()}
