"""Configs with another batch size."""

import ml_collections

from patch_svdd_jax.errors import UserError


def resize(config: ml_collections.ConfigDict, pairs: int) -> ml_collections.ConfigDict:
  """Returns a copy of the config with `pairs` in a batch, and as many pairs in each crop.

  Raises:
    UserError: the pairs are no whole number of crops.
  """
  train = config.train
  resized = config.copy_and_resolve_references()
  resized.train.batch_size = pairs
  if train.pairs == 'crops':
    crops, rest = divmod(pairs * train.crops, train.batch_size)
    if rest or not crops:
      raise UserError(
        f'a batch of {pairs} pairs: give a multiple of {train.batch_size // train.crops}, the '
        f'pairs of a crop (config.train.batch_size={train.batch_size} among '
        f'config.train.crops={train.crops})'
      )
    resized.train.crops = crops
  return resized
