r"""Your own images, in MVTec's layout: `folder.py:/data/parts`.

  python train.py --config configs/folder.py:/data/parts --workdir runs/parts

Of the folder only train/good is needed; test/<type> and ground_truth/<type> make eval.py possible.
The brightness and gain of patches are varied, since light varies between photographs. A tenth of
the images of train/good is not trained on: it chooses the checkpoint.
"""

import ml_collections

from patch_svdd_jax.configs import default


def get_config(root: str = '') -> ml_collections.ConfigDict:
  """Returns settings for photographs: varied light, a channel mean, 5,000 steps."""
  config = default.get_config()
  config.data.name = 'folder'
  config.data.category = ''
  config.data.root = root
  config.data.held_out = 0.1
  config.train.steps = 5000
  config.train.svdd_weight = 1e-3
  config.train.learning_rate = 3e-4
  config.train.position_pairs = 'valid'
  config.train.mean = 'channel'
  config.train.augment.brightness = 0.08
  config.train.augment.gain = 0.1
  return config
