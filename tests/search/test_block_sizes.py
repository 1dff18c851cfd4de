"""Block sizes that fit into the memory that there is."""

import types

import jax
import pytest

from patch_svdd_jax.search import block_sizes
from patch_svdd_jax.search.block_sizes import BlockSizes

MIB = 2**20


@pytest.fixture
def machine(monkeypatch):
  """Called with its free memory in bytes, it has that."""

  def pretend(free):
    monkeypatch.setattr(block_sizes, 'free_memory', lambda device: free)

  return pretend


def device(platform, statistics=None):
  return types.SimpleNamespace(platform=platform, memory_stats=lambda: statistics)


@pytest.mark.parametrize('free', [2 * MIB, 64 * MIB, 700 * MIB, 10**10])
@pytest.mark.parametrize('groups', [1, 100, 4096, 50_000])
@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_bounds_take_an_eighth_of_the_free_memory(free, groups, platform, machine):
  machine(free)
  sizes = block_sizes.choose(device(platform), groups, 3249)
  assert sizes.queries % 64 == 0
  assert 64 <= sizes.queries <= 4096
  # Two copies of f32[queries, groups]; fewer queries than 64 would save little.
  needed = 2 * 4 * sizes.queries * groups
  budget = min(free / 8, 64 * MIB) if platform == 'cpu' else free / 8
  assert needed <= budget or sizes.queries == 64
  # Nor would 64 queries more have fitted.
  assert sizes.queries == 4096 or needed + 2 * 4 * 64 * groups > budget


@pytest.mark.parametrize(
  ('queries', 'rows'), [(1, 4096), (500, 4096), (1024, 2048), (3249, 512), (10**6, 512)]
)
def test_on_a_cpu_few_queries_are_multiplied_with_more_rows(queries, rows, machine):
  machine(2**40)
  assert block_sizes.choose(device('cpu'), 100, queries) == BlockSizes(4096, rows)


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_accelerators_get_large_products(platform, machine):
  machine(2**40)
  assert block_sizes.choose(device(platform), 100, 3249) == BlockSizes(4096, 8192)


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
  sizes = block_sizes.choose(jax.devices()[0], 1000, 3249)
  assert sizes.queries % 64 == 0
  assert sizes.rows == 512


@pytest.mark.parametrize(
  ('platform', 'rows', 'group'),
  [('cpu', 1, 8), ('cpu', 2049, 16), ('cpu', 10**9, 64), ('tpu', 1, 256), ('gpu', 10**9, 256)],
)
def test_groups_grow_with_the_bank(platform, rows, group):
  assert block_sizes.rows_of_group(platform, rows) == group


def test_groups_fit_products():
  for _, group in block_sizes.GROUPS_ON_CPU:
    assert block_sizes.ROWS_ON_CPU[0] % group == block_sizes.LARGEST_GROUP_ON_CPU % group == 0
