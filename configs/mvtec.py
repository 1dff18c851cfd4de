r"""MVTec AD with the authors' settings: `mvtec.py:screw`, or any other of the 15 categories.

  python train.py --config configs/mvtec.py:screw --config.data.root=DATA --workdir runs/screw

DATA is the official archive or its extracted folder; it is read once. `mvtec.py:all` trains and
measures all categories that are there, one after another, `mvtec.py:multiclass` one model for all.
"""

import ml_collections

from patch_svdd_jax.configs import default


def get_config(category: str = 'screw') -> ml_collections.ConfigDict:
  """Returns the authors' settings: 300 epochs of 100 pairs an image, batch 64, Adam 1e-4."""
  from patch_svdd_jax.data.mvtec import COUNTS  # imports TFDS, which takes a second

  config = default.get_config()
  config.data.name = 'mvtec'
  config.data.category = category
  config.data.resize = 'nearest'
  images = {name: counts.train or 0 for name, counts in COUNTS.items()}
  images['multiclass'] = sum(images.values())
  config.train.steps = 300 * images.get(category, 240) * 100 // 64
  config.train.svdd_weight = 1e-3
  return config
