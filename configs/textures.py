r"""The embedded textures at their own size: `textures.py:brick` (the default), `:grass`, `:gravel`.

  python train.py --config configs/textures.py:brick --workdir runs/brick

They come with scikit-image: nothing is downloaded.
"""

import ml_collections

from patch_svdd_jax.configs import default


def get_config(category: str = 'brick') -> ml_collections.ConfigDict:
  """Returns the authors' settings for one texture of 128 x 128 pixels."""
  config = default.get_config()
  config.data.name = 'textures'
  config.data.category = category
  config.data.image_size = (128, 128)
  return config
