"""Another batch: crops hold as many pairs as before."""

import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.training import batches


@pytest.mark.parametrize(
  ('kind', 'pairs', 'crops'),
  [('patches', 7, 4), ('crops', 64, 4), ('crops', 16, 1), ('crops', 4096, 256)],
)
def test_the_batch_is_resized(kind, pairs, crops):
  config = default.get_config()
  config.train.pairs = kind
  resized = batches.resize(config, pairs)
  assert (resized.train.batch_size, resized.train.crops) == (pairs, crops)
  assert (config.train.batch_size, config.train.crops) == (64, 4)


@pytest.mark.parametrize('pairs', [8, 24, 0])
def test_no_part_of_a_crop(pairs):
  config = default.get_config()
  config.train.pairs = 'crops'
  with pytest.raises(UserError, match=f'batch of {pairs} pairs: give a multiple of 16'):
    batches.resize(config, pairs)
