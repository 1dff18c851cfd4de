"""Nearest rows of the memory bank against brute force in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from patch_svdd_jax import nearest
from patch_svdd_jax.embedding import DEVICES, Embeddings, local_mesh
from patch_svdd_jax.errors import UserError

IMAGES, PATCHES, DIM = 10, 37, 32
QUERIES, QUERY_BLOCK, BLOCK = 101, 48, 64  # neither divides what it cuts

# LLVM's optimisations take longer than what they make faster here.
quick = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


@functools.cache
def quick_bank(block):
  return quick(lambda embeddings: nearest.build_bank(embeddings, block))


@functools.cache
def quick_search(query_block):
  return quick(lambda queries, bank: nearest.search(queries, bank, query_block))


def deal(rows, trap=0.0):
  """Embeddings of images f32[N, P, D] over four devices; padding images lie at `trap`."""
  count = len(rows)
  share = -(-count // 4)
  dealt = np.full((4 * share, *rows.shape[1:]), trap, np.float32)
  dealt[:count] = rows
  sharding = NamedSharding(local_mesh(), PartitionSpec(DEVICES))
  valid = (np.arange(4 * share) < count).reshape(4, share)
  return Embeddings(
    jax.device_put(dealt.reshape(4, share, *rows.shape[1:]), sharding),
    jax.device_put(valid, sharding),
  )


def brute_force(queries, rows):
  """All distances, in float64 by differences."""
  queries, rows = queries.astype(np.float64), rows.astype(np.float64)
  return np.stack([np.sqrt(((query - rows) ** 2).sum(axis=1)) for query in queries])


def original_row(index, images, patches, block):
  """Which row of the images a row number of the bank is: each device's part is padded to blocks."""
  per_device = -(-images // 4) * patches
  block = min(block, per_device)
  device, row = np.divmod(index, -(-per_device // block) * block)
  assert (row < per_device).all()
  return device * per_device + row


def check(queries, rows, *, trap=0.0, block=BLOCK, query_block=QUERY_BLOCK, rtol=1e-6, atol=1e-7):
  """Distances are exact, and the row that is named has that distance."""
  images, patches, dim = rows.shape
  bank = quick_bank(block)(deal(rows, trap))
  assert bank.size == images * patches
  distance, index = quick_search(query_block)(jnp.array(queries), bank)
  assert (distance.dtype, index.dtype) == (jnp.float32, jnp.int32)
  exact = brute_force(queries, rows.reshape(-1, dim))
  smallest = exact.min(axis=1)
  np.testing.assert_allclose(distance, smallest, rtol=rtol, atol=atol)
  named = original_row(np.asarray(index), images, patches, block)
  assert (named < images * patches).all()
  of_named = np.take_along_axis(exact, named[:, None], axis=1)[:, 0]
  np.testing.assert_allclose(of_named, smallest, rtol=rtol, atol=atol)
  return np.asarray(distance), named


def random_rows(images=IMAGES, patches=PATCHES, dim=DIM):
  return np.random.default_rng(0).normal(size=(images, patches, dim)).astype(np.float32)


def random_queries(count=QUERIES, dim=DIM):
  return np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)


@pytest.mark.parametrize('scale', [1e-3, 1, 1e3])
def test_random_rows(scale):
  scale = np.float32(scale)
  check(scale * random_queries(), scale * random_rows(), atol=1e-7 * scale)


def test_rows_close_together_far_from_zero():
  # As the authors' K=64 embeddings of screw: without centring their distances drown.
  narrow = np.float32(0.95) + np.float32(4e-4) * random_rows()
  queries = np.float32(0.95) + np.float32(4e-4) * random_queries()
  check(queries, narrow, atol=0)
  check(np.concatenate([queries[:50], -queries[:51]]), narrow, atol=0)


def very_different_norms():
  norms = np.logspace(-3, 3, IMAGES * PATCHES, dtype=np.float32)
  shuffled = np.random.default_rng(0).permutation(norms).reshape(IMAGES, PATCHES, 1)
  queries = random_queries() * np.logspace(-3, 3, QUERIES, dtype=np.float32)[:, None]
  return queries, random_rows() * shuffled


def tight_clusters():
  """Ten clusters, a thousand times smaller than their distance from each other."""
  centres = np.tanh(random_queries(IMAGES))
  queries = centres[np.arange(QUERIES) % IMAGES] + np.float32(1e-3) * random_queries()
  return queries, centres[:, None] + np.float32(1e-3) * random_rows()


@pytest.mark.parametrize('points', [very_different_norms, tight_clusters])
def test_near_ties_are_told_apart_as_well_as_float32_products_can(points):
  # Rows choose by |b|^2 / 2 - q.b, which is rounded as the squared norms are, not as the distance.
  queries, rows = points()
  bank = nearest.build_bank(deal(rows), BLOCK)
  distance, index = quick_search(QUERY_BLOCK)(jnp.array(queries), bank)
  exact = brute_force(queries, rows.reshape(-1, DIM))
  named = original_row(np.asarray(index), IMAGES, PATCHES, BLOCK)
  of_named = np.take_along_axis(exact, named[:, None], axis=1)[:, 0]
  centre = rows.reshape(-1, DIM).mean(axis=0, dtype=np.float64)
  norm = np.linalg.norm(queries - centre, axis=1) + exact.min(axis=1) + np.linalg.norm(centre)
  eps = np.finfo(np.float32).eps
  # The distance to the row that is named is right up to the subtraction of the centre.
  assert (np.abs(distance - of_named) <= 2 * eps * norm).all()
  assert (of_named**2 - exact.min(axis=1) ** 2 <= 8 * eps * norm**2).all()


def test_queries_that_are_in_the_bank():
  rows = random_rows()
  chosen = np.random.default_rng(2).permutation(IMAGES * PATCHES)[:QUERIES]
  distance, named = check(rows.reshape(-1, DIM)[chosen], rows, atol=0)
  np.testing.assert_array_equal(distance, np.zeros(QUERIES))
  np.testing.assert_array_equal(named, chosen)


def test_duplicate_rows():
  rows = random_rows()
  rows[4:8] = rows[0:4]
  rows[9] = rows[9, 0]
  queries = random_queries()
  queries[:40] = rows.reshape(-1, DIM)[:40]
  distance, named = check(queries, rows)
  np.testing.assert_array_equal(distance[:40], np.zeros(40))
  # Copies lie on other devices too: the first device's is named.
  np.testing.assert_array_equal(named[:40], np.arange(40))


def test_padding_is_never_the_nearest():
  # 10 images over four devices leave two of padding, here exactly where the queries are.
  queries = np.full((QUERIES, DIM), 3, np.float32) + np.float32(1e-3) * random_queries()
  check(queries, random_rows(), trap=3.0)
  check(queries, random_rows(), trap=1e6)


def test_a_bank_of_one_row():
  row = random_rows(1, 1)
  distance, _ = check(random_queries(), row, trap=7.0)
  np.testing.assert_allclose(distance, brute_force(random_queries(), row[0])[:, 0], rtol=1e-6)
  check(row[0], row, trap=7.0)


@pytest.mark.parametrize(
  ('block', 'query_block'), [(1000, 1000), (37 * 3, 101), (7, 1), (1, 33)], ids=str
)
def test_blocks_change_nothing(block, query_block):
  check(random_queries(), random_rows(), block=block, query_block=query_block)


@given(
  st.integers(1, 6),
  st.integers(1, 7),
  st.integers(1, 5),
  st.integers(1, 9),
  st.integers(1, 9),
  st.integers(1, 10),
  st.randoms(use_true_random=False),
)
@example(4, 3, 2, 6, 3, 3, None)  # everything divides
@example(1, 1, 1, 1, 1, 1, None)
@example(5, 1, 1, 2, 3, 2, None)  # the last device holds nothing
# To shrink an example takes minutes: each shape is compiled anew.
@settings(
  max_examples=5,
  deadline=None,
  derandomize=True,
  phases=[Phase.explicit, Phase.generate],
)
def test_any_shape(images, patches, dim, count, query_block, block, random):
  rng = np.random.default_rng(random.getrandbits(32) if random else 0)
  # Few different values: ties and zero distances are common.
  rows = rng.integers(-2, 3, (images, patches, dim)).astype(np.float32)
  queries = rng.integers(-2, 3, (count, dim)).astype(np.float32)
  check(queries, rows, trap=0.0, block=block, query_block=query_block, atol=1e-6)


def test_memory_is_bounded_by_the_blocks():
  queries, dim, block, query_block = 4096, 64, 1024, 512
  everywhere = NamedSharding(local_mesh(), PartitionSpec())
  divided = NamedSharding(local_mesh(), PartitionSpec(DEVICES))

  def shape(sharding, *extents):
    return jax.ShapeDtypeStruct(extents, jnp.float32, sharding=sharding)

  def temporaries(blocks):
    bank = nearest.Bank(
      shape(divided, 4, blocks, block, dim),
      shape(divided, 4, blocks, block),
      shape(everywhere, dim),
    )
    program = nearest._search.lower(shape(everywhere, queries, dim), bank, query_block).compile()
    return program.memory_analysis().temp_size_in_bytes

  small, large = temporaries(4), temporaries(400)
  assert large <= small + 4096
  # A few blocks of distances and a few copies of the queries.
  assert large < 4 * 4 * (3 * query_block * block + 4 * queries * dim)
  assert large < 4 * queries * 400 * block / 50


def test_the_bank_stays_divided():
  bank = nearest.build_bank(deal(random_rows()), BLOCK)
  for part in (bank.rows, bank.half_norms):
    assert len(part.sharding.device_set) == 4
    assert {shard.data.shape[0] for shard in part.addressable_shards} == {1}
  assert bank.rows.shape == (4, 2, BLOCK, DIM)
  assert np.isinf(bank.half_norms).sum() == 4 * 2 * BLOCK - IMAGES * PATCHES


def test_the_centre_is_the_mean_of_the_rows():
  rows = 5 + random_rows()
  bank = nearest.build_bank(deal(rows, trap=1e6), BLOCK)
  expected = rows.reshape(-1, DIM).astype(np.float64).mean(axis=0)
  np.testing.assert_allclose(bank.centre, expected, rtol=1e-6)


def test_queries_of_another_dimension_are_refused():
  bank = nearest.build_bank(deal(random_rows()), BLOCK)
  with pytest.raises(
    UserError, match=r'queries of 16 dimensions .* memory bank of 32: .*embed_dim'
  ):
    nearest.search(jnp.zeros((3, 16)), bank, QUERY_BLOCK)
