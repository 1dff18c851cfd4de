"""Block sizes that fit into the memory and the cache that there are."""

import types

import jax
import pytest

from patch_svdd_jax.search import block_sizes
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.screening import GROUP

MIB = 2**20


@pytest.fixture
def machine(monkeypatch):
  """Called with its free memory and its cache in bytes, it has them."""

  def pretend(free, cache=2**40):
    monkeypatch.setattr(block_sizes, 'free_memory', lambda device: free)
    monkeypatch.setattr(block_sizes, 'cache_size', lambda: cache)

  return pretend


def device(platform, statistics=None):
  return types.SimpleNamespace(platform=platform, memory_stats=lambda: statistics)


@pytest.mark.parametrize('free', [2 * MIB, 64 * MIB, 700 * MIB, 10**10])
@pytest.mark.parametrize('groups', [1, 100, 4096, 50_000])
@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_bounds_take_an_eighth_of_the_free_memory(free, groups, platform, machine):
  machine(free)
  sizes = block_sizes.choose(device(platform), groups)
  assert sizes.queries % 64 == 0
  assert 64 <= sizes.queries <= 4096
  # Three copies of f32[queries, groups]; fewer queries than 64 would save little.
  needed = 3 * 4 * sizes.queries * groups
  budget = min(free / 8, 192 * MIB) if platform == 'cpu' else free / 8
  assert needed <= budget or sizes.queries == 64
  # Nor would 64 queries more have fitted.
  assert sizes.queries == 4096 or needed + 3 * 4 * 64 * groups > budget


@pytest.mark.parametrize(
  ('cache', 'queries'),
  [(0, 64), (MIB // 2, 256), (8 * MIB, 4096), (MIB, 512), (512 * MIB, 4096)],
)
def test_on_a_cpu_products_stay_in_half_the_cache(cache, queries, machine):
  machine(2**40, cache)
  assert block_sizes.choose(device('cpu'), 100) == BlockSizes(queries, GROUP)


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_accelerators_get_large_products(platform, machine):
  machine(2**40, cache=1)
  assert block_sizes.choose(device(platform), 100) == BlockSizes(4096, 8192)


def test_free_memory_of_an_accelerator():
  statistics = {'bytes_limit': 1000, 'bytes_in_use': 300}
  assert block_sizes.free_memory(device('tpu', statistics)) == 700


@pytest.mark.parametrize('statistics', [None, {}])
@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_what_does_not_say_has_its_share_of_the_systems(platform, statistics, monkeypatch):
  available = types.SimpleNamespace(available=4000)
  monkeypatch.setattr(block_sizes.psutil, 'virtual_memory', lambda: available)
  assert block_sizes.free_memory(device(platform, statistics)) == 1000


def test_this_machine():
  assert 0 < block_sizes.free_memory(jax.devices()[0]) < 2**50
  assert block_sizes.cache_size() >= 2**16
  sizes = block_sizes.choose(jax.devices()[0], 1000)
  assert sizes.queries % 64 == 0
  assert sizes.rows == GROUP


@pytest.mark.parametrize('error', [ValueError, OSError])
def test_a_system_that_does_not_tell_its_cache(error, monkeypatch):
  def refuse(name):
    raise error(name)

  monkeypatch.setattr(block_sizes.os, 'sysconf', refuse)
  assert block_sizes.cache_size() == 8 * MIB


def test_a_system_that_says_nothing_of_its_cache(monkeypatch):
  monkeypatch.setattr(block_sizes.os, 'sysconf', lambda name: 0)
  assert block_sizes.cache_size() == 8 * MIB
