r"""Everything at half the size, for two CPU cores: 128-pixel images, K=32 on K=16, five layers.

The argument is a texture, or one of the other data sets with its own: `laptop.py:brick`,
`laptop.py:mvtec:screw`, `laptop.py:dataset:visa:candle`, `laptop.py:folder:/data/parts`.

  python train.py --config configs/laptop.py:brick --workdir runs/brick

One 2.6 GHz core trains brick in a minute; image/pixel AUROC .944/.964, mean of three seeds; of the
untrained encoder .644/.866 by its embedding, .822/.911 scored as the trained one
(docs/accuracy.md).
"""

import ml_collections

from patch_svdd_jax.configs import dataset, folder, mvtec, textures
from patch_svdd_jax.errors import UserError


def get_config(data: str = 'brick') -> ml_collections.ConfigDict:
  """Returns the small settings for a texture or the data set of another config."""
  kind, colon, name = data.partition(':')
  others = {
    'mvtec': mvtec.get_config,
    'dataset': dataset.get_config,
    'folder': folder.get_config,
  }
  if colon and kind not in others:
    raise UserError(
      f"laptop:{data}: give a texture, 'mvtec:CATEGORY', 'dataset:NAME:CATEGORY' or 'folder:ROOT'"
    )
  # What suits photographs, with the data set of another config.
  config = folder.get_config()
  named = (others[kind](name) if colon else textures.get_config(data)).data
  config.data.update(name=named.name, category=named.category, root=named.root)
  config.data.image_size = (128, 128)
  config.data.resize = 'box'
  config.encoder.receptive_field = 16
  config.encoder.scales = (32, 16)
  config.encoder.depth = 5
  config.encoder.width = 0.5
  config.score.strides = (8, 4)
  config.train.crop_size = 80
  config.train.steps = 1800
  config.train.learning_rate = 1e-3
  config.baseline.steps = 200
  return config
