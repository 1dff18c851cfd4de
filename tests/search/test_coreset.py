"""K-center greedy against the plain algorithm in float64, and against every choice there is."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import coreset

pytestmark = pytest.mark.usefixtures('small_passes')

# Neither a block of rows, the candidates nor the choices between two passes divide them.
ROWS, COUNT, DIM, PART = 5000, 700, 8, 1300


@pytest.fixture
def small_passes(monkeypatch):
  monkeypatch.setattr(coreset, 'CANDIDATES', 500)
  monkeypatch.setattr(coreset, 'CHOICES', 300)


def greedy(rows, count, start):
  """The plain algorithm: row numbers."""
  return greedy_of_bytes(rows.tobytes(), rows.shape[1], count, int(start))


@functools.cache
def greedy_of_bytes(rows, dim, count, start):
  rows = np.frombuffer(rows, np.float32).reshape(-1, dim).astype(np.float64)
  squared = ((rows - rows[start]) ** 2).sum(axis=1)
  indices = [start]
  while len(indices) < count:
    indices.append(int(squared.argmax()))
    squared = np.minimum(squared, ((rows - rows[indices[-1]]) ** 2).sum(axis=1))
  return indices


def check(rows, count, given=None, **options):
  selection = coreset.select(rows if given is None else given, count, **options)
  np.testing.assert_array_equal(selection, greedy(rows, count, selection[0]))
  assert selection.dtype == np.int32
  return selection


def random_rows(count=ROWS, dim=DIM):
  """Multiples of 1/64: float32 holds their squared distances exactly, so no near tie is rounded."""
  normal = np.random.default_rng(0).normal(size=(count, dim))
  return (np.round(64 * normal) / 64).astype(np.float32)


def padded(rows):
  """Few rows among padding, at which traps lie: all tests share the programs of one shape."""
  given = np.full((ROWS, DIM), 1e3, np.float32)
  given[: len(rows)] = 0
  given[: len(rows), : rows.shape[1]] = rows
  return {'given': given, 'valid': np.arange(ROWS) < len(rows)}


def dealt(rows, devices):
  """Rows sharded over the first so many devices."""
  mesh = Mesh(np.array(jax.devices()[:devices]), ('anything',))
  return jax.device_put(rows, NamedSharding(mesh, PartitionSpec('anything')))


def test_the_rows_of_the_plain_algorithm():
  check(random_rows(), COUNT)


@pytest.mark.parametrize('devices', [1, 4])
def test_any_number_of_devices_chooses_the_same(devices):
  rows = random_rows()
  check(rows, COUNT, given=dealt(rows, devices))


def test_rows_streamed_from_the_host_are_the_same(tmp_path):
  rows = random_rows()
  np.save(tmp_path / 'rows.npy', rows)
  check(rows, COUNT, given=np.load(tmp_path / 'rows.npy', mmap_mode='r'), at_once=PART)


def test_streaming_keeps_two_parts_on_the_devices(monkeypatch):
  on_devices = []
  run = coreset.pass_over

  def watched(part, *arguments, **options):
    on_devices.append(sum(array.shape == part.shape for array in jax.live_arrays()))
    return run(part, *arguments, **options)

  monkeypatch.setattr(coreset, 'pass_over', watched)
  coreset.select(random_rows(), COUNT, at_once=PART)
  assert len(on_devices) >= 8
  assert max(on_devices) <= 2


@pytest.mark.parametrize('scale', [2.0**-14, 2.0**14])
def test_any_scale(scale):
  check(np.float32(scale) * random_rows(), 300)


def test_rows_close_together_far_from_zero():
  # As the authors' K=64 embeddings of screw.
  offsets = random_rows() * np.float32(2**-12)
  check(np.float32(0.75) + offsets, 300)


def test_norms_that_differ_by_seven_orders():
  rows = random_rows() * np.logspace(-4, 3, ROWS, dtype=np.float32)[:, None]
  check(rows, 300)


def test_of_equally_far_rows_the_first_is_chosen():
  # 7^3 points, each about 15 times: squared distances are small integers that many rows share, and
  # candidates fall to that of the bar.
  rows = np.random.default_rng(1).integers(0, 7, (ROWS, DIM)).astype(np.float32)
  rows[:, 3:] = 0
  check(rows, 300)
  check(rows, 300, at_once=PART)


@pytest.mark.parametrize(('bar', 'chosen'), [(3, [0]), (9, [0, 8])])
def test_a_candidate_as_far_as_the_bar_is_chosen_if_it_comes_first(bar, chosen):
  # The first choice brings the other candidate, row 8, down to the bar's squared distance of 4.
  farthest = coreset.Farthest(
    np.array([9, 9, 4], np.float32), np.array([0, 8, bar]), np.array([[3], [5], [2]], np.float32)
  )
  found = coreset.choose(farthest, 3, size=4)
  assert found.indices[: int(found.number)].tolist() == chosen


def test_where_distinct_rows_run_out_copies_are_not_kept():
  rows = np.repeat(random_rows(50), 100, axis=0)
  rows = rows[np.random.default_rng(1).permutation(len(rows))]
  selection = coreset.select(rows, 80)
  assert len(selection) == 50
  assert len(np.unique(rows[selection], axis=0)) == 50
  # Of the copies of a row the first is kept; the start alone is drawn.
  for index in selection[1:]:
    assert index == (rows == rows[index]).all(axis=1).argmax()


def test_all_rows():
  rows = random_rows(301)
  selection = check(rows, 301, **padded(rows))
  assert sorted(selection) == list(range(301))


@pytest.mark.parametrize('count', [1, 2, 3])
def test_the_radius_is_within_twice_the_smallest(count):
  rows = np.random.default_rng(3).normal(size=(14, 2)).astype(np.float32)
  distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
  smallest = min(
    distances[:, kept].min(axis=1).max() for kept in itertools.combinations(range(14), count)
  )
  for seed in range(5):
    selection = check(rows, count, seed=seed, **padded(rows))
    reached = distances[:, selection].min(axis=1).max()
    assert smallest <= reached * (1 + 1e-6) <= 2 * smallest


def test_padding_is_never_chosen():
  rows = random_rows()
  valid = np.arange(ROWS) % 50 < 47
  given = np.where(valid[:, None], rows, 1e3).astype(np.float32)
  selection = coreset.select(given, COUNT, valid=valid)
  packed = np.flatnonzero(valid)
  indices = greedy(rows[valid], COUNT, np.searchsorted(packed, selection[0]))
  np.testing.assert_array_equal(selection, packed[indices])


def test_the_seed_draws_the_first_row():
  starts = [coreset.select(random_rows(), 1, seed=seed)[0] for seed in range(8)]
  assert len(set(starts)) == 8
  assert coreset.select(random_rows(), 5, seed=3)[0] == starts[3]


def test_progress_counts_the_choices():
  seen = []

  def progress(choices):
    for choice in choices:
      seen.append(choice)
      yield choice

  coreset.select(random_rows(), 50, progress=progress)
  assert seen == list(range(50))


@pytest.mark.parametrize('narrow', [1e-6, 1e-3, 1])
def test_the_bound_is_below_the_computed_distance(narrow):
  rng = np.random.default_rng(4)
  # Rows near choices, both far from the common point: the products cancel.
  chosen = rng.normal(size=(64, 32)).astype(np.float32)
  rows = chosen[rng.integers(64, size=512)] + narrow * rng.normal(size=(512, 32))
  rows = rows.astype(np.float32)
  arguments = rows, np.full(32, 5, np.float32), chosen, np.arange(64) < 60
  bounds = np.asarray(jax.jit(coreset.lower_bounds)(*arguments), np.float64)
  computed = ((rows[None] - chosen[:, None]) ** 2).sum(axis=-1)
  assert (bounds[:60] <= computed[:60]).all()
  assert np.isinf(bounds[60:]).all()
  # Nor is it lower than it need be: 2 e of the squared norms, which are about 26 * 32 each.
  assert (computed - bounds)[:60].max() < 2 * (8 * 32 + 32) * 2.0**-24 * 4 * 26 * 32


def test_a_pass_serves_many_choices(monkeypatch):
  passes = []
  run = coreset.pass_over
  monkeypatch.setattr(coreset, 'pass_over', lambda *a, **k: passes.append(1) or run(*a, **k))
  coreset.select(random_rows(), COUNT)
  assert len(passes) <= 8


def test_memory_is_bounded_by_the_blocks():
  mesh = Mesh(np.array(jax.devices()[:2]), (coreset.DEVICES,))

  def temporaries(rows, choices):
    def shape(*extents, dtype=jnp.float32, over=coreset.REPLICATED):
      return jax.ShapeDtypeStruct(extents, dtype, sharding=NamedSharding(mesh, over))

    program = coreset.pass_over.lower(
      shape(rows, 64, over=coreset.SHARDED),
      shape(rows, over=coreset.SHARDED),
      coreset.Chosen(
        shape(dtype=jnp.int32),
        shape(choices, dtype=jnp.int32),
        shape(choices, 64),
      ),
      coreset.Farthest(shape(4097), shape(4097, dtype=jnp.int32), shape(4097, 64)),
      shape(dtype=jnp.int32),
      mesh=mesh,
    )
    return program.compile().memory_analysis().temp_size_in_bytes

  # Not even a byte a row, where the rows themselves take 512 MB on each device.
  assert temporaries(2**22, 1024) < 2**22


@pytest.mark.parametrize('count', [0, 301])
def test_impossible_counts_are_refused(count):
  with pytest.raises(UserError, match=f'cannot keep {count} of 300 rows of the memory bank: keep'):
    coreset.select(random_rows(300), count)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize('at_once', [None, PART])
def test_rows_that_are_not_numbers_are_refused(value, at_once):
  rows = random_rows()
  for row in (4321, np.random.default_rng(0).integers(ROWS)):  # any row, and the first chosen
    bad = rows.copy()
    bad[row, 3] = value
    with pytest.raises(UserError, match=f'row {row} of the memory bank is NaN, infinite or beyond'):
      coreset.select(bad, 10, at_once=at_once)


def test_distance_error():
  full = np.array([1.0, 2.0, 3.0, 0.0], np.float32)
  reduced = np.array([1.0, 2.5, 3.0, 1.0], np.float32)
  expected = {'mean': 0.375, 'median': 0.25, 'max': 1.0, 'relative': 0.25}
  assert coreset.distance_error(full, reduced) == expected


def test_distance_error_of_queries_that_are_rows():
  zeros = np.zeros(3, np.float32)
  assert coreset.distance_error(zeros, zeros)['relative'] == 0
  assert math.isnan(coreset.distance_error(zeros, zeros + 1)['relative'])


@pytest.mark.parametrize(('full', 'reduced'), [(3, 4), (0, 0)])
def test_distances_of_different_queries_are_refused(full, reduced):
  with pytest.raises(UserError, match=f'distances of {full} and {reduced} queries'):
    coreset.distance_error(np.zeros(full, np.float32), np.zeros(reduced, np.float32))
