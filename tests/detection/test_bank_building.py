"""Which embeddings are kept, and where their bank lies."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.detection import bank_building
from patch_svdd_jax.models import architecture, embedding
from patch_svdd_jax.search import block_sizes, coreset, memory_bank
from patch_svdd_jax.search.memory_bank import HostBank, MemoryBank
from patch_svdd_jax.system.sharding import replicate
from tests.detection.test_detector import random_images, random_params, tiny_config

STRIDES = {32: 8, 16: 4}
PATCHES = {32: 2 * 3, 16: 7 * 9}
IMAGES = random_images(1, 5)
MEAN = np.full((1, 1, 3), 127, np.float32)


def score_config(**score):
  config = tiny_config()
  config.score.update(score)
  return config


def build(images=IMAGES, **score):
  config = score_config(**score)
  params, mean = replicate((random_params(config), MEAN))
  return bank_building.build(config, params, mean, images, STRIDES).banks


@pytest.fixture(scope='module')
def rows():
  """All embeddings of each scale, f32[N, D]."""
  config = tiny_config()
  params, mean = replicate((random_params(config), MEAN))
  arch = architecture.from_config(config.encoder)
  return embedding.embed_to_host(arch, params, mean, IMAGES, STRIDES, batch_size=1)


@pytest.fixture
def free(monkeypatch):
  """Called with n it leaves every device n bytes."""
  return lambda count: monkeypatch.setattr(block_sizes, 'free_memory', lambda device: count)


def check_rows(banks, expected):
  assert banks.keys() == expected.keys()
  for k, bank in banks.items():
    np.testing.assert_array_equal(memory_bank.to_rows(bank), expected[k])


def test_all_embeddings(rows):
  banks = build()
  assert {k: len(of_scale) for k, of_scale in rows.items()} == {k: 5 * PATCHES[k] for k in PATCHES}
  assert all(isinstance(bank, MemoryBank) for bank in banks.values())
  check_rows(banks, rows)


@pytest.mark.parametrize('on_host', [False, True])
def test_a_share_of_them_is_what_coreset_selects(on_host, rows, monkeypatch):
  monkeypatch.setattr(bank_building, 'lies_on_host', lambda *_: on_host)
  banks = build(coreset=0.1)
  expected = {}
  for k, of_scale in rows.items():
    count = round(0.1 * len(of_scale))
    kept = coreset.select(of_scale, count, seed=tiny_config().seed)
    assert len(kept) == count
    expected[k] = of_scale[np.sort(kept)]
  check_rows(banks, expected)


def test_the_seed_draws_the_first():
  rows = np.arange(50, dtype=np.float32)[:, None]
  config = score_config(coreset=0.02)
  kept = []
  for config.seed in range(8):
    kept.append(bank_building.reduce_rows(rows, 1, config, iter).rows.item())
  expected = [rows[coreset.select(rows, 1, seed=seed)].item() for seed in range(8)]
  assert kept == expected
  assert len(set(kept)) > 4


@pytest.mark.parametrize(
  ('size', 'share', 'count'), [(100, 0.1, 10), (100, 0.004, 1), (7, 0.5, 4), (3, 1, 3)]
)
def test_how_many_are_kept(size, share, count):
  assert bank_building.rows_kept(size, score_config(coreset=share)) == count


class TestWhereItLies:
  SHAPE = (5, 42, 49, 3)
  # Three copies of one value of four bytes, of each patch of both scales.
  NEEDED = 3 * 5 * (2 * 3 + 7 * 9) * 4

  @pytest.mark.parametrize(
    ('score', 'dim'),
    [({}, 8), ({'whiten': True, 'components': 5}, 5), ({'features': ('thumbnail',)}, 48)],
  )
  @pytest.mark.parametrize(('spare', 'on_host'), [(1.01, False), (0.99, True)])
  def test_the_devices_memory_tells(self, spare, on_host, score, dim, free):
    free(spare * self.NEEDED * dim / 0.7 / 4)
    assert bank_building.lies_on_host(score_config(**score), self.SHAPE, STRIDES) == on_host

  def test_too_large_for_the_devices(self, rows, free):
    free(0)
    banks = build(np.tile(IMAGES, (4, 1, 1, 1)))
    # One scale is: no less than a group of 256 rows visits each device at a time.
    assert {k: type(bank) for k, bank in banks.items()} == {32: MemoryBank, 16: HostBank}
    check_rows(banks, {k: np.tile(of_scale, (4, 1)) for k, of_scale in rows.items()})

  def test_rows_that_were_saved(self, free):
    rows = np.random.default_rng(0).normal(size=(1030, 8)).astype(np.float32)
    assert isinstance(bank_building.place(rows), MemoryBank)
    # One group on each device at a time: 1,024 rows are as many as fit.
    free(0)
    assert isinstance(bank_building.place(rows[:1024]), MemoryBank)
    bank = bank_building.place(rows)
    assert isinstance(bank, HostBank)
    assert bank.chunk == 1024
    np.testing.assert_array_equal(memory_bank.to_rows(bank), rows)

  @pytest.mark.parametrize('dim', [8, 64])
  def test_two_chunks_and_their_copies_fit(self, dim, free):
    free(10**8)
    chunk = bank_building.chunk_size(dim)
    assert chunk % (4 * 256) == 0
    # On each of four devices: three copies of two chunks' rows.
    assert 0.99 * 0.7e8 < chunk / 4 * 2 * 3 * dim * 4 <= 0.7e8


def test_outliers_are_dropped_at_each_scale(rows):
  config = score_config(outliers=0.2)
  params, mean = replicate((random_params(config), MEAN))
  built = bank_building.build(config, params, mean, IMAGES, STRIDES)
  sizes = {32: 30 - 6, 16: 315 - 63}
  for k, bank in built.banks.items():
    assert isinstance(bank, MemoryBank)
    assert bank.size == sizes[k]
    everywhere = {row.tobytes() for row in rows[k]}
    assert all(row.tobytes() in everywhere for row in memory_bank.to_rows(bank))
  assert built.dropped.shape == (5,)
  np.testing.assert_allclose(built.dropped.sum() * (6 + 63), 6 + 63)


def test_progress_is_of_batches_and_then_of_choices():
  seen = []

  def progress(steps):
    seen.append(len(steps))
    return iter(steps)

  config = score_config(coreset=0.1)
  params, mean = replicate((random_params(config), MEAN))
  bank_building.build(config, params, mean, IMAGES, STRIDES, progress)
  # One image on each of four devices at a time; a tenth of 30 and of 315 rows.
  assert seen[0] == 2
  assert sorted(seen[1:]) == [3, 32]
  assert jax.local_device_count() == 4
