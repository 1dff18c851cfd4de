"""PyTorch does the work that training does, and batches suit the config."""

import pytest

from benchmarks import contenders
from patch_svdd_jax.errors import UserError
from tests.support import small_step


@pytest.fixture(scope='module')
def config():
  """An encoder of two layers and one scale on small images; its step is mostly convolutions."""
  return small_step.config()


def test_batches_that_do_not_suit_the_config_are_refused(config):
  crops = config.copy_and_resolve_references()
  crops.train.pairs = 'crops'
  with pytest.raises(UserError, match='batch of 7 pairs: give a multiple of 2'):
    contenders.step_contenders(crops, 7, ['crops'], with_torch=False)
  with pytest.raises(UserError, match=r"config\.train\.pairs='nonsense'"):
    contenders.step_contenders(config, 8, ['nonsense'], with_torch=False)
  found = contenders.step_contenders(config, 8, ['patches', 'crops'], with_torch=True)
  assert list(found) == ['patches', 'crops', 'torch']


@pytest.mark.parametrize(
  'prepare', [contenders.prepare_torch_step, contenders.prepare_torch_embedding]
)
def test_torch_does_the_same_work(config, prepare):
  pytest.importorskip('torch')
  found = prepare(config)
  found.call()
  assert found.steps == 1
