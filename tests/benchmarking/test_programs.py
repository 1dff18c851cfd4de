"""Programs do the work that training does, counted, as far as memory suffices."""

import jax
import pytest
from jax import numpy as jnp

from patch_svdd_jax.benchmarking import programs
from patch_svdd_jax.models import flops
from patch_svdd_jax.system import sharding
from tests.support import small_step


@pytest.fixture(scope='module')
def config():
  """An encoder of two layers and one scale on small images; its step is mostly convolutions."""
  return small_step.config()


@pytest.fixture(scope='module')
def step(config):
  return programs.prepare_step(config, sharding.first_devices(4))


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
  monkeypatch.setattr(programs.block_sizes, 'free_memory', lambda _: 1000)
  # The memory of four devices of the CPU.
  one, all_of_them = sharding.first_devices(1), sharding.local_mesh()
  assert (programs.free_memory(one), programs.free_memory(all_of_them)) == (4000, 1000)

  def lowered(values):
    return jax.jit(lambda x: x + 1).lower(jnp.zeros(values))

  with pytest.raises(programs.OutOfMemoryError, match='4e-06 GB a device, where 1e-06 are free'):
    programs.compile_fitting(lowered(1000), all_of_them)
  assert programs.compile_fitting(lowered(1000), one)
  assert programs.compile_fitting(lowered(10), all_of_them)


def test_the_embedding_of_an_image_on_each_device(config):
  found = programs.prepare_embedding(config)
  found.call()
  assert found.steps == jax.local_device_count()
  assert found.flops < found.compiler_flops < 1.5 * found.flops
  assert len(found.dispatched) == 1
