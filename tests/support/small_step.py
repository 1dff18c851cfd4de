"""A train step that is small, for what times or takes programs apart."""

import ml_collections

from patch_svdd_jax.configs import default


def config() -> ml_collections.ConfigDict:
  """Returns an encoder of two layers and one scale on small images; mostly convolutions."""
  config = default.get_config()
  config.data.image_size = (64, 64)
  config.encoder.receptive_field = 16
  config.encoder.scales = (16,)
  config.encoder.depth = 2
  config.encoder.channels = (64,)
  config.train.batch_size = 8
  config.train.crops = 4
  config.train.crop_size = 32
  config.train.steps_per_call = 3
  config.score.strides = (4,)
  return config
