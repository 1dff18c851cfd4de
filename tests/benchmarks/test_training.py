"""What is measured of training: the program that training runs, counted and timed."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from patch_svdd_jax.benchmarks import hardware, training
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops

pytestmark = pytest.mark.usefixtures('quick_compilation')
PRODUCTS = {'f32': hardware.Product(lambda: None, 1e6)}


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
  return training.prepare_step(config)


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


def test_a_row_is_what_the_calls_took():
  found = training.Contender(lambda: None, 10, 64, 2e6, 3e6, 1234, [])
  peer = training.Contender(lambda: None, 1, 64, 2e6, None, None, [])
  contenders = {'patches': lambda: found, 'torch': lambda: peer}
  ours, torch = training.measure_contenders(64, contenders, PRODUCTS, rounds=3)
  assert (ours.name, ours.batch, ours.memory) == ('patches', 64, 1234)
  assert ours.pairs_per_second > 0
  assert ours.torch_ratio > 0
  assert ours.peak_share.keys() == ours.peak_gflops.keys() == {'f32'}
  assert (torch.name, torch.torch_ratio, torch.dispatch_share) == ('torch', None, None)


def test_medians_over_rounds(monkeypatch):
  taken = {
    'patches': np.array([1.0, 4.0, 2.0]),
    'torch': np.array([3.0, 4.0, 8.0]),
    'f32 product': np.array([0.5, 0.5, 1.0]),
  }
  monkeypatch.setattr(training.timing, 'interleave', lambda calls, _: {n: taken[n] for n in calls})
  dispatched = [0.0]
  found = training.Contender(lambda: dispatched.append(0.1), 2, 8, 3e6, 4e6, 1, dispatched)
  peer = training.Contender(lambda: None, 1, 8, 3e6, None, None, [])

  monkeypatch.setattr(training, 'prepare_all', lambda _: {'patches': found, 'torch': peer})
  found.dispatched[:] = [0.1, 0.1, 0.1]
  ours, torch = training.measure_contenders(8, {}, PRODUCTS, rounds=3)
  assert ours.seconds == 1.0
  assert ours.pairs_per_second == 8.0
  assert ours.torch_ratio == 6.0  # of 6, 2 and 8
  assert ours.dispatch_share == pytest.approx(0.05)  # of 10, 2.5 and 5 %
  assert ours.peak_gflops == {'f32': pytest.approx(2e-3)}
  assert ours.peak_share == {'f32': pytest.approx(4.0)}  # 8, 2 and 4 MFLOP/s of 2, 2 and 1
  assert torch.peak_share == {'f32': pytest.approx(0.375)}  # 1, 0.75 and 0.375 of 2, 2 and 1


def test_what_does_not_fit_ends_its_row_alone():
  def exhausted():
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')

  def fits_not():
    raise training.OutOfMemoryError

  def contender(call):
    return training.Contender(call, 1, 8, 1e6, None, None, [])

  rows = training.measure_contenders(
    64,
    {
      'patches': fits_not,
      'crops': lambda: contender(exhausted),
      'torch': lambda: contender(lambda: None),
    },
    PRODUCTS,
    rounds=1,
  )
  assert [(row.name, row.seconds is None) for row in rows] == [
    ('patches', True), ('crops', True), ('torch', False),
  ]  # fmt: skip
  assert all(isinstance(dataclasses.asdict(row), dict) for row in rows)


def test_other_errors_are_not_hidden():
  def broken():
    raise jax.errors.JaxRuntimeError('INTERNAL: broken')

  contender = training.Contender(broken, 1, 8, 1e6, None, None, [])
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    training.measure_contenders(64, {'patches': lambda: contender}, PRODUCTS, rounds=1)


def test_a_program_larger_than_the_free_memory_is_not_run(monkeypatch):
  monkeypatch.setattr(training.block_sizes, 'free_memory', lambda _: 1000)
  with pytest.raises(training.OutOfMemoryError):
    training.compile_fitting(jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)))
  assert training.compile_fitting(jax.jit(lambda x: x + 1).lower(jnp.zeros(10)))


def test_batches_that_do_not_suit_the_config_are_refused(config):
  crops = config.copy_and_resolve_references()
  crops.train.pairs = 'crops'
  with pytest.raises(UserError, match='batch of 7 pairs: give a multiple of 2'):
    training.step_contenders(crops, 7, ['crops'], with_torch=False)
  with pytest.raises(UserError, match=r"config\.train\.pairs='nonsense'"):
    training.step_contenders(config, 8, ['nonsense'], with_torch=False)
  found = training.step_contenders(config, 8, ['patches', 'crops'], with_torch=True)
  assert list(found) == ['patches', 'crops', 'torch']


def test_the_embedding_of_an_image_on_each_device(config):
  found = training.prepare_embedding(config)
  found.call()
  assert found.steps == jax.local_device_count()
  assert found.flops < found.compiler_flops < 1.5 * found.flops
  assert len(found.dispatched) == 1


@pytest.mark.parametrize('prepare', [training.prepare_torch_step, training.prepare_torch_embedding])
def test_torch_does_the_same_work(config, prepare):
  pytest.importorskip('torch')
  found = prepare(config)
  found.call()
  assert found.steps == 1
