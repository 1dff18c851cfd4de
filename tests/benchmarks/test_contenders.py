"""Contenders do the work that training does, counted, as far as memory suffices."""

import jax
import pytest
from jax import numpy as jnp

from benchmarks import contenders
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops


@pytest.fixture(scope='module')
def config():
  """An encoder of two layers and one scale on small images; its step is mostly convolutions."""
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


@pytest.fixture(scope='module')
def step(config):
  return contenders.prepare_step(config)


def test_a_call_takes_its_steps_and_says_when_it_returned(step, config):
  assert (step.steps, step.pairs) == (3, 2 * 8)
  before = len(step.dispatched)
  step.call()
  step.call()
  assert len(step.dispatched) == before + 2
  assert min(step.dispatched) > 0


def test_the_compiler_counts_one_step_on_all_devices(step, config):
  assert step.flops == flops.step_flops(config)
  # It counts activations and the drawing of pairs, too, but no step twice.
  assert step.flops < step.compiler_flops < 2 * step.flops


def test_a_program_larger_than_the_free_memory_is_not_run(monkeypatch):
  monkeypatch.setattr(contenders.block_sizes, 'free_memory', lambda _: 1000)
  with pytest.raises(contenders.OutOfMemoryError):
    contenders.compile_fitting(jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)))
  assert contenders.compile_fitting(jax.jit(lambda x: x + 1).lower(jnp.zeros(10)))


def test_batches_that_do_not_suit_the_config_are_refused(config):
  crops = config.copy_and_resolve_references()
  crops.train.pairs = 'crops'
  with pytest.raises(UserError, match='batch of 7 pairs: give a multiple of 2'):
    contenders.step_contenders(crops, 7, ['crops'], with_torch=False)
  with pytest.raises(UserError, match=r"config\.train\.pairs='nonsense'"):
    contenders.step_contenders(config, 8, ['nonsense'], with_torch=False)
  found = contenders.step_contenders(config, 8, ['patches', 'crops'], with_torch=True)
  assert list(found) == ['patches', 'crops', 'torch']


def test_the_embedding_of_an_image_on_each_device(config):
  found = contenders.prepare_embedding(config)
  found.call()
  assert found.steps == jax.local_device_count()
  assert found.flops < found.compiler_flops < 1.5 * found.flops
  assert len(found.dispatched) == 1


@pytest.mark.parametrize(
  'prepare', [contenders.prepare_torch_step, contenders.prepare_torch_embedding]
)
def test_torch_does_the_same_work(config, prepare):
  pytest.importorskip('torch')
  found = prepare(config)
  found.call()
  assert found.steps == 1
