r"""A published data set by its name and category: `dataset.py:visa:candle`.

  python train.py --config configs/dataset.py:visa:pcb1 --config.data.root=DATA --workdir runs/pcb1

DATA is the official download; it is read once. docs/datasets.md lists the data sets. Those without
categories need none: `dataset.py:kolektor_sdd2`.
"""

import ml_collections

from patch_svdd_jax.configs import folder


def get_config(data: str = 'visa:candle') -> ml_collections.ConfigDict:
  """Returns the settings for photographs of `folder.py`, for 'NAME:CATEGORY' or 'NAME'."""
  name, _, category = data.partition(':')
  config = folder.get_config()
  config.data.name = name
  config.data.category = category or 'all'
  return config
