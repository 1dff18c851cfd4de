r"""Your own images, in MVTec's layout or another form: `folder.py:/data/parts`.

  python train.py --config configs/folder.py:/data/parts --workdir runs/parts

Of the folder only train/good is needed; test/<type> and ground_truth/<type> make eval.py possible.
A CSV or JSON lines file, folders normal, abnormal and masks, or a flat folder of normal images are
recognised as well (docs/datasets.md).
Light varies between photographs: every image is brought to the same mean and contrast, and the
brightness and gain of what is trained on are varied. Pairs come from densely encoded crops. A tenth
of the images of train/good is not trained on: it chooses the checkpoint, and says whether training
paid. Losses and features are not the authors', but those that find most on several data sets
(docs/accuracy.md).
"""

import ml_collections

from patch_svdd_jax.configs import default


def get_config(root: str = '') -> ml_collections.ConfigDict:
  """Returns settings for photographs; two CPU cores train them in about 25 minutes."""
  config = default.get_config()
  config.data.name = 'folder'
  config.data.category = ''
  config.data.root = root
  config.data.light = 'standardised'
  config.data.held_out = 0.1
  config.encoder.init = 'he'
  config.train.steps = 1200
  config.train.pairs = 'crops'
  config.train.batch_size = 512
  config.train.position_pairs = 'valid'
  config.train.svdd_weight = 1e-3
  config.train.position_weight = 0.3
  config.train.contrast = 1.0
  config.train.learning_rate = 4e-4
  config.train.warmup_steps = 30
  config.train.decay = 'cosine'
  config.train.clip_norm = 1.0
  config.train.mean = 'channel'
  config.train.augment.brightness = 0.08
  config.train.augment.gain = 0.1
  config.score.features = ('embedding', 'hidden', 'thumbnail')
  config.score.whiten = True
  return config
