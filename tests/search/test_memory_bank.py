"""Where the rows of a memory bank lie, and that they are all there, as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.detection import bank_building
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.embedding import Embeddings
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system.sharding import DEVICES, all_devices
from tests.support import banks

DIM = 5


@pytest.fixture
def sharded(monkeypatch):
  """Small banks too are sharded over the devices."""
  monkeypatch.setattr(memory_bank, 'SMALL', 0)


def random_rows(count):
  return np.random.default_rng(count).normal(size=(count, DIM)).astype(np.float32)


def mesh_of(devices):
  return Mesh(np.array(jax.devices()[:devices]), (DEVICES,))


def on_devices(bank):
  """The parts that each device has, in the order of the devices."""
  shards = sorted(bank.rows.addressable_shards, key=lambda shard: shard.device.id)
  assert [shard.device for shard in shards] == list(bank.mesh.devices)
  return [np.asarray(shard.data) for shard in shards]


def test_each_device_has_its_part_alone(sharded):
  rows = random_rows(1030)
  bank = memory_bank.from_rows(rows)
  assert (bank.size, bank.dim, bank.mesh) == (1030, DIM, all_devices())
  assert bank.layout.sharded
  # Runs of 258 rows, in groups of 8.
  assert bank.groups_on_device == 33
  assert bank.rows.shape == (4 * 33, 8 * DIM)
  assert bank.vectors.shape[:2] == (4 * 33, 8)
  assert bank.vectors.sharding == bank.rows.sharding
  for number, part in enumerate(on_devices(bank)):
    own = rows[258 * number : 258 * (number + 1)]
    flat = part.reshape(-1, DIM)
    np.testing.assert_array_equal(flat[: len(own)], own)
    assert not flat[len(own) :].any()
  for shard in bank.vectors.addressable_shards:
    assert len(shard.data) == 33


def test_a_small_bank_is_copied_to_all_devices():
  rows = random_rows(1030)
  bank = memory_bank.from_rows(rows)
  assert not bank.layout.sharded
  assert bank.rows.shape == (129, 8 * DIM)
  for part in on_devices(bank):
    np.testing.assert_array_equal(part.reshape(-1, DIM)[:1030], rows)


@pytest.mark.parametrize(('spare', 'sharded'), [(0, False), (-1, True)])
def test_what_is_small(spare, sharded, monkeypatch):
  rows = random_rows(1030)
  monkeypatch.setattr(memory_bank, 'SMALL', rows.nbytes + spare)
  assert memory_bank.from_rows(rows).layout.sharded == sharded


def test_one_device_has_it_all(sharded):
  bank = memory_bank.from_rows(random_rows(1030), mesh_of(1))
  assert not bank.layout.sharded
  assert bank.rows.sharding.device_set == {jax.devices()[0]}


@pytest.mark.parametrize('small', [0, 2**20])
@pytest.mark.parametrize('count', [1, 3, 255, 256, 1024, 1030])
def test_round_trip(count, small, monkeypatch):
  monkeypatch.setattr(memory_bank, 'SMALL', small)
  rows = random_rows(count)
  bank = memory_bank.from_rows(rows)
  assert bank.size == count
  np.testing.assert_array_equal(memory_bank.to_rows(bank), rows)


def test_round_trip_of_a_bank_on_the_host(sharded):
  rows = random_rows(1030)
  bank = memory_bank.on_host(rows, 1000)
  assert (bank.size, bank.dim, bank.groups_on_device) == (1030, DIM, 125)
  np.testing.assert_array_equal(memory_bank.to_rows(bank), rows)
  for first in (0, 1000):
    chunk = bank.load(first)
    np.testing.assert_array_equal(memory_bank.to_rows(chunk), rows[first : first + 1000])
    # The screen is made once for all chunks.
    assert chunk.screen is bank.screen


def embeddings_of(rows, images, patches, trap):
  """As the embedding pass leaves them: images dealt to the devices, trapped ones behind."""
  share = -(-images // 4) + 1
  dealt = np.empty((4 * share, patches, DIM), np.float32)
  dealt[:] = trap
  dealt[:images] = rows.reshape(images, patches, DIM)
  sharding = NamedSharding(all_devices(), PartitionSpec(DEVICES))
  return Embeddings(jax.device_put(dealt.reshape(4, share, patches, DIM), sharding), images)


# Of four devices the last one has nothing but padding, and the last but one some.
@pytest.mark.parametrize('trap', ['large', 'query', np.nan])
@pytest.mark.parametrize('small', [0, 2**20])
def test_embeddings_are_rows_and_their_padding_is_none(trap, small, monkeypatch):
  monkeypatch.setattr(memory_bank, 'SMALL', small)
  rows, queries = random_rows(7 * 60), random_rows(8) + 1
  trap = {'large': 1e6, 'query': queries[0]}.get(trap, trap)
  bank = bank_building.from_embeddings(embeddings_of(rows, 7, 60, trap))
  assert (bank.size, bank.layout.sharded) == (7 * 60, small == 0)
  np.testing.assert_array_equal(memory_bank.to_rows(bank), rows)
  found = nearest.search(queries, bank, 2)
  expected = nearest.search(queries, memory_bank.from_rows(rows), 2)
  np.testing.assert_array_equal(found.distances, expected.distances)
  np.testing.assert_array_equal(found.indices, expected.indices)
  np.testing.assert_array_equal(found.indices, banks.brute_force(queries, rows, 2)[1])


def test_the_sample_is_of_the_rows_alone(sharded, monkeypatch):
  samples = []
  design = memory_bank.screening.design
  monkeypatch.setattr(
    memory_bank.screening,
    'design',
    lambda sample, *rest: samples.append(sample) or design(sample, *rest),
  )
  rows = random_rows(7 * 60)
  bank_building.from_embeddings(embeddings_of(rows, 7, 60, 1e6))
  (sample,) = samples
  assert sample.shape[1:] == (memory_bank.RUN, DIM)
  own = {row.tobytes() for row in rows}
  assert {row.tobytes() for row in sample.reshape(-1, DIM)} <= own


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('small', [0, 2**20])
def test_rows_that_are_no_numbers_are_refused(value, small, monkeypatch):
  monkeypatch.setattr(memory_bank, 'SMALL', small)
  rows = random_rows(1030)
  rows[1029, 4] = value
  with pytest.raises(UserError, match=r'^the memory bank has a NaN or an infinity: check [^\n]*$'):
    memory_bank.from_rows(rows)


def test_on_the_host_what_the_sample_shows_is_refused():
  rows = random_rows(1030)
  rows[7, 4] = np.nan
  with pytest.raises(UserError, match='the memory bank has a NaN or an infinity'):
    memory_bank.on_host(rows, 1000)


@pytest.mark.parametrize('shape', [(0, DIM), (DIM,), (3, 0), (2, 3, DIM)])
@pytest.mark.parametrize('make', [memory_bank.from_rows, lambda rows: memory_bank.on_host(rows, 9)])
def test_what_is_no_bank_is_refused(shape, make):
  with pytest.raises(UserError, match=r'^a memory bank needs rows f32\[N, D\], N >= 1; [^\n]*$'):
    make(np.zeros(shape, np.float32))


def test_other_types_become_float32():
  rows = random_rows(20).astype(np.float64)
  bank = memory_bank.from_rows(rows)
  assert bank.rows.dtype == jnp.float32
  np.testing.assert_array_equal(memory_bank.to_rows(bank), rows.astype(np.float32))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_type_of_the_screen(dtype):
  bank = memory_bank.from_rows(random_rows(1030), dtype=dtype)
  assert (bank.rows.dtype, bank.vectors.dtype) == (jnp.float32, dtype)
  assert bank.vectors.shape[-1] == {jnp.float32: DIM + 2, jnp.bfloat16: 24}[dtype]


def test_a_bank_is_a_tree():
  bank = memory_bank.from_rows(random_rows(300))
  leaves, structure = jax.tree.flatten(bank)
  assert len(leaves) == 2 + sum(part is not None for part in bank.screen)
  again = jax.tree.unflatten(structure, leaves)
  assert again.layout == bank.layout
  # Another bank of the same shapes uses the same programs.
  other = memory_bank.from_rows(random_rows(300) + 1)
  assert jax.tree.structure(other) == structure
