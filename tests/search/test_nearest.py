"""The exact search against brute force in float64, on banks that are hard in different ways."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import memory_bank, nearest, passes, products, screening
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.system.sharding import DEVICES
from tests.support import banks


@pytest.fixture
def sharded(monkeypatch):
  """Small banks too are sharded over the devices."""
  monkeypatch.setattr(memory_bank, 'SMALL', 0)


def mesh_of(devices):
  return Mesh(np.array(jax.devices()[:devices]), (DEVICES,))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('kind', banks.HARD)
def test_exact(kind, dtype, sharded):
  rows, queries = banks.make(kind)
  k = min(3, len(rows))
  bank = memory_bank.from_rows(rows, dtype=jnp.dtype(dtype))
  assert bank.vectors.dtype == dtype
  found = nearest.search(jnp.asarray(queries), bank, k, query_block=64)
  banks.check(queries, found, banks.brute_force(queries, rows, k))


@pytest.mark.parametrize('kind', [banks.duplicates, banks.few_dimensions])
def test_any_number_of_devices_divided_or_not(kind, monkeypatch):
  rows, queries = banks.make(kind)
  found = []
  for small, devices in ((0, 1), (0, 2), (0, 4), (2**20, 4)):
    monkeypatch.setattr(memory_bank, 'SMALL', small)
    bank = memory_bank.from_rows(rows, mesh_of(devices))
    assert bank.layout.sharded == (devices > 1 and small == 0)
    found.append(nearest.search(queries, bank, 3, query_block=64))
  banks.check(queries, found[0], banks.brute_force(queries, rows, 3))
  for other in found[1:]:
    np.testing.assert_array_equal(other.distances, found[0].distances)
    np.testing.assert_array_equal(other.indices, found[0].indices)


# One program each: shapes are listed, values drawn.
@pytest.mark.parametrize(
  ('size', 'dim', 'count', 'query_block', 'bank_block', 'k', 'dtype'),
  [
    (1, 1, 1, 1, 512, 1, 'float32'),
    (5, 2, 3, 2, 512, 4, 'bfloat16'),  # the last devices hold nothing
    (513, 1, 40, 65, 256, 1, 'float32'),
    (600, 9, 33, 8, 1024, 3, 'bfloat16'),
  ],
)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-4, 4))
def test_any_shape_and_scale(size, dim, count, query_block, bank_block, k, dtype, seed, exponent):
  rng = np.random.default_rng(seed)
  scale = np.float32(10**exponent)
  # Few different values: ties and zero distances are common.
  rows = scale * rng.integers(-2, 3, (size, dim)).astype(np.float32)
  queries = scale * rng.integers(-2, 3, (count, dim)).astype(np.float32)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(memory_bank, 'SMALL', 0)
    bank = memory_bank.from_rows(rows, dtype=jnp.dtype(dtype))
  found = nearest.search(queries, bank, k, query_block=query_block, bank_block=bank_block)
  banks.check(queries, found, banks.brute_force(queries, rows, k))


@pytest.mark.parametrize('k', [1, 3, 9])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_queries_that_the_screen_was_not_made_for(dtype, k, sharded, monkeypatch):
  """Few components see no difference between rows: queries give up, and are screened anew."""
  rng = np.random.default_rng(0)
  rows = np.concatenate([rng.normal(size=(3000, 3)), 0.01 * rng.normal(size=(3000, 13))], axis=1)
  queries = np.concatenate([rng.normal(size=(300, 3)), 2 * rng.normal(size=(300, 13))], axis=1)
  rows, queries = rows.astype(np.float32), queries.astype(np.float32)
  designed = screening.design
  monkeypatch.setattr(
    screening,
    'design',
    lambda *args: few_axes(designed(*args), jnp.dtype(dtype), args[0].reshape(-1, 16)),
  )
  monkeypatch.setattr(passes, 'SCREENED_ANEW', 32)
  nearest.search_on_devices.clear_cache()
  bank = memory_bank.from_rows(rows, mesh_of(1))
  assert not screening.is_tight(bank.screen)
  found = nearest.search(queries, bank, k)
  banks.check(queries, found, banks.brute_force(queries, rows, k))
  assert float(found.fallback_fraction) > 0.8
  taken = nearest.search_on_devices(queries, bank, k, nearest.sizes_for(bank, len(queries)))[2]
  # Every group would have been most of 375.
  assert int(taken.max()) < 2 * max(passes.GROUPS * k, 375 // screening.PRODUCT) + k + 100


def few_axes(screen, dtype, points):
  """A screen of the three leading axes."""
  _, axes = np.linalg.eigh(np.cov(points.T))
  axes = jnp.asarray(0.999 * axes[:, :-4:-1], jnp.float32)
  if dtype == jnp.bfloat16:
    return screen._replace(basis=axes[:, :1], rough=axes[:, 1:])
  return screen._replace(basis=axes, rough=None)


def test_many_dimensions(sharded):
  rng = np.random.default_rng(0)
  rows, queries = (rng.normal(size=(count, 512)).astype(np.float32) for count in (700, 9))
  bank = memory_bank.from_rows(rows)
  banks.check(queries, nearest.search(queries, bank), banks.brute_force(queries, rows, 1))


@functools.partial(jax.jit, static_argnames='k')
def squared_search(queries, bank, k):
  """As part of another program."""
  found = nearest.search(jnp.square(queries), bank, k)
  return found._replace(distances=found.distances + 1)


def test_inside_of_jit(sharded):
  rows, queries = banks.make(banks.gaussian_pair)
  found = squared_search(queries, memory_bank.from_rows(rows), 2)
  expected = banks.brute_force(np.square(queries), rows, 2)
  banks.check(
    queries, found._replace(distances=found.distances - 1), (np.round(expected[0], 7), expected[1])
  )


def test_inside_of_jit_a_query_without_a_number_has_no_distance(sharded):
  rows, queries = banks.make(banks.gaussian_pair)
  queries[3, 1], queries[5, 0] = np.nan, np.inf
  distances = np.asarray(squared_search(queries, memory_bank.from_rows(rows), 2).distances)
  assert np.isnan(distances[[3, 5]]).all()
  assert np.isfinite(np.delete(distances, [3, 5], axis=0)).all()


def test_no_queries():
  rows, queries = banks.make(banks.gaussian_pair)
  found = nearest.search(queries[:0], memory_bank.from_rows(rows), 2)
  assert found.distances.shape == found.indices.shape == (0, 2)
  assert found.fallback_fraction == 0


def test_what_a_screen_saves_and_what_it_cannot(sharded):
  def fallback_fraction(kind):
    rows, queries = banks.make(kind)
    return float(nearest.search(queries, memory_bank.from_rows(rows, mesh_of(1))).fallback_fraction)

  # Rows that are far apart compared with what the screen leaves out are proven at once.
  assert fallback_fraction(banks.few_dimensions) < 0.1
  assert fallback_fraction(banks.queries_in_the_bank) == 0
  # Inside a tight cluster rounding hides who is nearer.
  assert fallback_fraction(banks.tight_clusters) > 0.9


class TestOnHost:
  """Banks whose chunks visit the devices in turn."""

  @pytest.fixture(autouse=True)
  def all_components(self, monkeypatch):
    """All banks share their programs."""
    monkeypatch.setattr(screening, 'COMPONENTS', ())
    monkeypatch.setattr(screening, 'WIDTHS', ())
    monkeypatch.setattr(memory_bank, 'products_of', lambda platform: [products.FLOAT32])

  # Two chunks are full, the last one is half full.
  @pytest.mark.parametrize('kind', [banks.duplicates, banks.narrow])
  def test_exact(self, kind, sharded):
    rows, queries = banks.make(kind)
    found = nearest.search(queries, memory_bank.on_host(rows, 600), 3, query_block=64)
    banks.check(queries, found, banks.brute_force(queries, rows, 3))

  @pytest.mark.parametrize('chunk', [1, 700])
  def test_one_row(self, chunk):
    rows, queries = banks.make(banks.one_row)
    found = nearest.search(queries, memory_bank.on_host(rows, chunk), 1, query_block=64)
    banks.check(queries, found, banks.brute_force(queries, rows, 1))

  def test_more_wanted_than_a_chunk_has(self):
    rows, queries = banks.make(banks.gaussian_pair)
    bank = memory_bank.on_host(rows[:24], 8)
    banks.check(
      queries, nearest.search(queries, bank, 20), banks.brute_force(queries, rows[:24], 20)
    )

  def test_read_from_a_file_chunk_by_chunk(self, tmp_path, monkeypatch, sharded):
    rows, queries = banks.make(banks.gaussian_pair)
    np.save(tmp_path / 'rows.npy', rows)
    bank = memory_bank.on_host(np.load(tmp_path / 'rows.npy', mmap_mode='r'), 600)
    loaded = []
    load = memory_bank.HostBank.load
    monkeypatch.setattr(
      memory_bank.HostBank, 'load', lambda self, first: loaded.append(first) or load(self, first)
    )
    found = nearest.search(queries, bank, 3, query_block=64)
    banks.check(queries, found, banks.brute_force(queries, rows, 3))
    assert loaded == [0, 600, 1200]

  def test_a_bad_row_in_a_later_chunk(self, sharded):
    rows, queries = banks.make(banks.gaussian_pair)
    rows[1300, 3] = np.nan
    with pytest.raises(UserError, match='memory bank has a NaN or an infinity'):
      nearest.search(queries, memory_bank.on_host(rows, 600), 3, query_block=64)


def test_memory_does_not_grow_with_queries_times_rows():
  queries, dim = 4096, 64

  def temporaries(groups):
    mesh = mesh_of(1)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    screen = screening.Screen(shape((dim,)), shape((dim, 14)), shape(()))
    rows, vectors = shape((groups, 256 * dim)), shape((groups, 256, 16))
    layout = memory_bank.Layout(groups * 256, groups * 256, mesh, 256)
    bank = memory_bank.MemoryBank(rows, vectors, screen, layout)
    program = nearest.search_on_devices.lower(shape((queries, dim)), bank, 1, BlockSizes(1024, 256))
    return program.compile().memory_analysis().temp_size_in_bytes

  few, many = temporaries(40), temporaries(4000)
  # Only the bounds grow: one for each group, and each of 1,024 queries and of those that are
  # screened anew, in at most four copies.
  assert many - few <= 4 * 4 * (1024 + passes.SCREENED_ANEW) * (4000 - 40)
  # A block of products, some float64 copies of the queries, and of the rows that are looked at.
  looked_at = 8 * passes.TOGETHER * passes.GROUPS * 256 * dim
  assert few < 4 * 1024 * 256 * 3 + 8 * queries * dim * 4 + looked_at
  assert many < 4 * queries * 4000 * 256 / 100


def test_queries_of_another_dimension_are_refused():
  bank = memory_bank.from_rows(banks.make(banks.gaussian_pair)[0])
  with pytest.raises(
    UserError, match=r'queries of shape \[3, 16\] .* of 24 dimensions: .*embed_dim'
  ):
    nearest.search(jnp.zeros((3, 16)), bank)


@pytest.mark.parametrize('k', [0, -1, 1501])
def test_as_many_as_there_are_not_are_refused(k):
  rows, queries = banks.make(banks.gaussian_pair)
  with pytest.raises(UserError, match=f'k={k}: the memory bank has 1500 rows, k must be 1 to 1500'):
    nearest.search(queries, memory_bank.from_rows(rows), k)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_queries_that_are_no_numbers_are_refused(value):
  rows, queries = banks.make(banks.gaussian_pair)
  bank = memory_bank.from_rows(rows)
  queries[7, 7] = value
  with pytest.raises(UserError, match='query has a NaN or an infinity'):
    nearest.search(queries, bank)


@pytest.mark.parametrize(('query_block', 'bank_block'), [(-1, 0), (0, 100), (0, -256)])
def test_bad_block_sizes_are_refused(query_block, bank_block):
  rows, queries = banks.make(banks.gaussian_pair)
  bank = memory_bank.from_rows(rows)
  with pytest.raises(UserError, match='bank_block a multiple of 256'):
    nearest.search(queries, bank, query_block=query_block, bank_block=bank_block)
