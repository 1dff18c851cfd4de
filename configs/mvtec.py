r"""MVTec AD with the authors' settings: `mvtec.py:screw`, or any other of the 15 categories.

  python train.py --config configs/mvtec.py:screw --config.data.root=DATA --workdir runs/screw

DATA is the official archive or its extracted folder; it is read once. `mvtec.py:all` trains and
measures all categories that are there, one after another, `mvtec.py:multiclass` one model for all.
"""

import ml_collections

from patch_svdd_jax.configs import default

TRAINING_IMAGES = {
  'bottle': 209,
  'cable': 224,
  'capsule': 219,
  'carpet': 280,
  'grid': 264,
  'hazelnut': 391,
  'leather': 245,
  'metal_nut': 220,
  'pill': 267,
  'screw': 320,
  'tile': 230,
  'toothbrush': 60,
  'transistor': 213,
  'wood': 247,
  'zipper': 240,
}


def get_config(category: str = 'screw') -> ml_collections.ConfigDict:
  """Returns the authors' settings: 300 epochs of 100 pairs an image, batch 64, Adam 1e-4."""
  config = default.get_config()
  config.data.name = 'mvtec'
  config.data.category = category
  config.data.resize = 'nearest'
  images = TRAINING_IMAGES | {'multiclass': sum(TRAINING_IMAGES.values())}
  config.train.steps = 300 * images.get(category, 240) * 100 // 64
  config.train.svdd_weight = 1e-3
  return config
