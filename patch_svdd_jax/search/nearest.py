"""Exact nearest rows of the memory bank, by a screen that proves which rows need no pass.

1. One product of screening vectors (screening.py) gives, for each query and each group of rows, a
   proven lower bound of the distance to all rows of the group; of the products only the groups'
   minima are kept.
2. Each pass of a query takes one of its groups, that with the least bound first, and computes the
   distances to the group's rows by the difference form. It is proven, and rests, as soon as the
   next bound is above the k-th best distance that it has found.
3. These distances are float32's; those of a few more rows than wanted are computed in float64. A
   query for which the rounding of float32 may have hidden a nearer row has passes in float64 too.

So the result is exact whatever the data: a screen that fits them badly costs time alone. Distances
are those of float64, rounded once; equally near rows come in the order of their numbers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import block_sizes, screening, screening_pallas
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.memory_bank import HostBank, MemoryBank
from patch_svdd_jax.search.screening import GROUP, Screen
from patch_svdd_jax.system import devices
from patch_svdd_jax.system.sharding import DEVICES, PRECISION, REPLICATED, SHARDED

# Queries that scan a group at the same time.
TOGETHER = 32

# Rows kept beyond those wanted: by their distances the others are told from the wanted ones.
SPARE = 3

NOTHING = jnp.iinfo(jnp.int32).max

# Squared distances f64[Q, k], row numbers i32[Q, k], and how many passes they took, i32[Q].
Found = tuple[jax.Array, jax.Array, jax.Array]


class Neighbours(NamedTuple):
  """The nearest rows of some queries.

  Attributes:
    distances: f32[Q, k], L2, ascending.
    indices: i32[Q, k], the numbers of the rows, those of equally near rows ascending.
    fallback_fraction: f32[], of the queries, those that needed more than k passes.
  """

  distances: jax.Array
  indices: jax.Array
  fallback_fraction: jax.Array


class Search(NamedTuple):
  """What the nearest rows are searched for by.

  Attributes:
    queries: f32[Q, D].
    bounds: f32[Q, groups], of the squared distances times scale^2.
    rows: f32[groups, GROUP, D].
    row_count: of the rows that there are, from the first on.
    scale: f32[], the screen's.
    k: how many rows have to be right.
  """

  queries: jax.Array
  bounds: jax.Array
  rows: jax.Array
  row_count: jax.Array
  scale: jax.Array
  k: int


class State(NamedTuple):
  """What changes from pass to pass.

  Attributes:
    bounds: f32[Q, groups]; infinite of groups that were scanned.
    upcoming: f32[Q], the least of each query's.
    squared, indices, passes: what was found, as `Found`; squared distances are dtype[Q, kept].
  """

  bounds: jax.Array
  upcoming: jax.Array
  squared: jax.Array
  indices: jax.Array
  passes: jax.Array


def search(
  queries: jax.Array,
  bank: MemoryBank | HostBank,
  k: int = 1,
  *,
  query_block: int = 0,
  bank_block: int = 0,
) -> Neighbours:
  """The k nearest rows of the memory bank  (k = 1: Yi & Yoon 2020, eq. 7).

  Args:
    queries: f32[Q, D].
    bank: of the same D. One on the host cannot be searched inside of jit.
    k: how many, from 1 to the size of the bank.
    query_block: queries whose bounds are in memory at a time; 0 is chosen by block_sizes.
    bank_block: rows whose products with them are, a multiple of 256; 0 likewise.

  Returns:
    Their distances and numbers. Inside of jit a query with a NaN or an infinity gets NaN.

  Raises:
    UserError: D differs, k or a block size is out of range, or, outside of jit, a query has a NaN
      or an infinity.
  """
  devices.check()
  if queries.ndim != 2 or queries.shape[1] != bank.dim:
    raise UserError(
      f'queries of shape {list(queries.shape)} cannot be compared with a memory bank of '
      f'{bank.dim} dimensions: fit and score with the same config.encoder.embed_dim'
    )
  if not 1 <= k <= bank.size:
    raise UserError(f'k={k}: the memory bank has {bank.size} rows, k must be 1 to {bank.size}')
  if not len(queries):
    return Neighbours(jnp.zeros((0, k)), jnp.zeros((0, k), jnp.int32), jnp.float32(0))
  if not isinstance(queries, jax.core.Tracer) and not jnp.isfinite(queries).all():
    raise UserError('a query has a NaN or an infinity: check the images and the encoder')
  sizes = sizes_for(bank, query_block, bank_block)
  if isinstance(bank, HostBank):
    squared, indices, passes = _stream(queries, bank, k, sizes)
  else:
    squared, indices, passes = search_on_devices(queries, bank, k, sizes)
  neighbours: Neighbours = _neighbours(queries, squared, indices, passes)
  return neighbours


def sizes_for(bank: MemoryBank | HostBank, query_block: int = 0, bank_block: int = 0) -> BlockSizes:
  """The block sizes of a search, chosen for the devices where they are 0.

  Raises:
    UserError: they are out of range.
  """
  chosen = block_sizes.choose(bank.mesh.local_devices[0], bank.groups_on_device)
  sizes = BlockSizes(query_block or chosen.queries, bank_block or chosen.rows)
  if sizes.queries < 1 or sizes.rows < GROUP or sizes.rows % GROUP:
    raise UserError(
      f'query_block={query_block}, bank_block={bank_block}: must be 0 (chosen for the device) or '
      f'positive, and bank_block a multiple of {GROUP}'
    )
  return sizes


@jax.jit
def _neighbours(
  queries: jax.Array, squared: jax.Array, indices: jax.Array, passes: jax.Array
) -> Neighbours:
  """From squared distances f64[Q, k] and the number of passes i32[Q]."""
  finite = jnp.isfinite(queries).all(axis=1, keepdims=True)
  with jax.enable_x64(True):
    distances = jnp.sqrt(squared).astype(jnp.float32)
  distances = jnp.where(finite, distances, jnp.nan)
  # The k nearest may lie in as many groups.
  fallback_fraction = jnp.sum(passes > indices.shape[1], dtype=jnp.int32).astype(jnp.float32)
  return Neighbours(distances, indices, fallback_fraction / len(passes))


def _stream(queries: jax.Array, bank: HostBank, k: int, sizes: BlockSizes) -> Found:
  """Searches one chunk while the next one travels to the devices."""
  best: Found | None = None
  upcoming = bank.load(0)
  for first in range(0, bank.size, bank.chunk):
    chunk = upcoming
    if first + bank.chunk < bank.size:
      upcoming = bank.load(first + bank.chunk)
    found = search_on_devices(queries, chunk, min(k, chunk.size), sizes)
    best = _shift(found, first) if best is None else _merge(best, _shift(found, first), k)
    # No more than two chunks are on the devices.
    jax.block_until_ready(best)
  assert best is not None
  return best


@jax.jit
def _shift(found: Found, first: int) -> Found:
  """Numbers the rows of a chunk as those of the bank."""
  squared, indices, passes = found
  return squared, indices + first, passes


@functools.partial(jax.jit, static_argnames='k')
def _merge(best: Found, found: Found, k: int) -> Found:
  """The k nearest of both."""
  with jax.enable_x64(True):
    squared, indices = (
      jnp.concatenate(pair, axis=1) for pair in zip(best[:2], found[:2], strict=True)
    )
    return *_least(squared, indices, min(k, squared.shape[1])), jnp.maximum(best[2], found[2])


@functools.partial(jax.jit, static_argnames=('k', 'sizes'))
def search_on_devices(queries: jax.Array, bank: MemoryBank, k: int, sizes: BlockSizes) -> Found:
  """Divides the bank, or else the queries, over the devices."""
  count, layout = len(queries), bank.layout
  if not layout.sharded:
    queries = jnp.pad(queries, ((0, -count % layout.mesh.size), (0, 0)))
  share = len(queries) if layout.sharded else len(queries) // layout.mesh.size
  blocks = -(-share // sizes.queries)
  block = -(-share // blocks)

  def on_device(queries: jax.Array, rows: jax.Array, vectors: jax.Array, screen: Screen) -> Found:
    def find(queries: jax.Array) -> Found:
      minima = functools.partial(_group_minima, bank_block=sizes.rows, platform=layout.platform)
      return _find(queries, rows[0], vectors[0], screen, layout.row_count(), k, minima)

    padded = jnp.pad(queries, ((0, blocks * block - share), (0, 0))).reshape(
      blocks, block, bank.dim
    )
    squared, local, passes = (
      found.reshape(blocks * block, *found.shape[2:])[:share] for found in lax.map(find, padded)
    )
    indices = jnp.where(local < NOTHING, local + layout.first_row(), NOTHING)
    if layout.sharded:
      return _nearest_of_all(squared, indices, passes, k)
    gather = functools.partial(lax.all_gather, axis_name=DEVICES, tiled=True)
    return gather(squared), gather(indices), gather(passes)

  squared, indices, passes = jax.shard_map(
    on_device,
    mesh=layout.mesh,
    in_specs=(REPLICATED if layout.sharded else SHARDED, layout.spec, layout.spec, REPLICATED),
    out_specs=REPLICATED,
    check_vma=False,
  )(queries, bank.rows, bank.vectors, bank.screen)
  return squared[:count], indices[:count], passes[:count]


def _nearest_of_all(squared: jax.Array, indices: jax.Array, passes: jax.Array, k: int) -> Found:
  """The k nearest of those that the devices have found, f64[Q, k] and i32[Q, k] on each."""
  with jax.enable_x64(True):
    squared = lax.all_gather(squared, DEVICES, axis=1, tiled=True)
    indices = lax.all_gather(indices, DEVICES, axis=1, tiled=True)
    return *_least(squared, indices, k), lax.pmax(passes, DEVICES)


def _find(
  queries: jax.Array,
  rows: jax.Array,
  vectors: jax.Array,
  screen: Screen,
  count: jax.Array,
  k: int,
  minima: Callable[[jax.Array, jax.Array], jax.Array],
) -> Found:
  """The nearest of the first `count` rows f32[groups, GROUP, D]."""
  query_vectors, squared = screening.query_vectors(screen, queries, vectors.dtype)
  bounds = screening.lower_bounds(minima(query_vectors, vectors), squared)
  there = jnp.arange(len(rows)) * GROUP < count
  bounds = jnp.where(there[None], bounds, jnp.inf)
  search = Search(queries, bounds, rows, count, screen.scale, k)
  everyone = jnp.ones(len(queries), bool)
  squared, indices, passes = _scan_groups(search, everyone, k + SPARE, jnp.float32)
  exact = _squared_distances(queries, rows, indices)
  certain = _certain(squared, indices, exact, k, queries.shape[1])
  found = (*_least(exact, indices, k), passes)

  def fall_back() -> Found:
    squared, indices, more_passes = _scan_groups(search, ~certain, k, jnp.float64)
    with jax.enable_x64(True):
      kept = certain[:, None]
      squared, indices = jnp.where(kept, found[0], squared), jnp.where(kept, found[1], indices)
    return squared, indices, passes + more_passes

  nearest: Found = lax.cond(certain.all(), lambda: found, fall_back)
  return nearest


def _squared_distances(queries: jax.Array, rows: jax.Array, indices: jax.Array) -> jax.Array:
  """Of each query f32[Q, D] to rows of f32[groups, GROUP, D], f64[Q, k]; infinite to NOTHING."""
  rows = rows.reshape(-1, rows.shape[-1])

  def one(query_and_indices: tuple[jax.Array, jax.Array]) -> jax.Array:
    query, indices = query_and_indices
    with jax.enable_x64(True):
      there = rows.at[indices].get(mode='clip').astype(jnp.float64)
      squared = jnp.sum(jnp.square(query.astype(jnp.float64)[None] - there), axis=-1)
      return jnp.where(indices < NOTHING, squared, jnp.inf)

  squared: jax.Array = lax.map(one, (queries, indices), batch_size=TOGETHER)
  return squared


def _certain(
  squared: jax.Array, indices: jax.Array, exact: jax.Array, k: int, dim: int
) -> jax.Array:
  """Whether no row that was not kept can be among the k nearest, bool[Q].

  Args:
    squared: f32[Q, k + SPARE] of the rows kept, ascending; those of other rows are no less.
    indices: i32[Q, k + SPARE].
    exact: f64[Q, k + SPARE], of the same rows.
    k: how many rows are wanted.
    dim: D.
  """
  with jax.enable_x64(True):
    others = squared[:, -1].astype(jnp.float64) * (1 - rounding(dim))
    wanted = jnp.sort(exact, axis=1)[:, k - 1]
    all_kept = indices[:, -1] == NOTHING
    return all_kept | (jnp.isfinite(others) & (others > wanted)) | (wanted == 0)


def rounding(dim: int) -> float:
  """The largest relative error of a squared distance by the difference form in float32, doubled."""
  return 2 * (dim + 4) * 2.0**-24


def _group_minima(
  queries: jax.Array, vectors: jax.Array, bank_block: int, platform: str
) -> jax.Array:
  """The least -u(q).u(b) of each group, f32[Q, groups]; vectors are [groups, GROUP, W]."""
  if platform == 'tpu' and vectors.dtype == jnp.bfloat16:
    minima: jax.Array = screening_pallas.group_minima(queries, vectors)
    return minima
  groups, _, width = vectors.shape
  together = max(1, min(bank_block // GROUP, groups))
  padded = jnp.pad(vectors, ((0, -groups % together), (0, 0), (0, 0)))

  def visit(block: jax.Array) -> jax.Array:
    products = lax.dot_general(
      queries,
      block.reshape(-1, width),
      (((1,), (1,)), ((), ())),
      precision=PRECISION if queries.dtype == jnp.float32 else None,
      preferred_element_type=jnp.float32,
    )
    return products.reshape(len(queries), together, GROUP).max(axis=-1)

  largest = lax.map(visit, padded.reshape(-1, together * GROUP, width))
  return -jnp.swapaxes(largest, 0, 1).reshape(len(queries), -1)[:, :groups]


def _scan_groups(
  search: Search, wanted: jax.Array, kept: int, dtype: jax.typing.DTypeLike
) -> Found:
  """Scans groups until no other can hold one of the k nearest rows.

  Args:
    search: by what.
    wanted: bool[Q], the queries to search for.
    kept: how many rows are kept.
    dtype: in which the distances are computed.

  Returns:
    Of the rows kept, with squared distances dtype[Q, kept].
  """
  queries, bounds = search.queries, search.bounds
  numbers = jnp.arange(bounds.shape[1], dtype=jnp.int32)[None]
  with jax.enable_x64(True):
    unit = search.scale.astype(jnp.float64) ** 2 * (1 + rounding(queries.shape[1]))

    def pending(state: State) -> jax.Array:
      worst = state.squared[:, search.k - 1].astype(jnp.float64)
      # Nothing is nearer than 0, and of groups with bounds of 0 the first comes first.
      bounded = state.upcoming <= worst * unit
      return wanted & bounded & (worst > 0) & jnp.isfinite(state.upcoming)

    start = State(
      bounds,
      bounds.min(axis=1),
      jnp.full((len(queries), kept), jnp.inf, dtype),
      jnp.full((len(queries), kept), NOTHING, jnp.int32),
      jnp.zeros(len(queries), jnp.int32),
    )
    end = lax.while_loop(
      lambda state: pending(state).any(),
      lambda state: _one_pass(search, numbers, pending(state), state),
      start,
    )
    return end.squared, end.indices, end.passes


def _one_pass(search: Search, numbers: jax.Array, waiting: jax.Array, state: State) -> State:
  """Lets some of the queries that wait, bool[Q], scan one group each.

  The groups' numbers are i32[1, groups].
  """
  bounds, upcoming, best, index, passes = state
  total, groups = bounds.shape
  with jax.enable_x64(False):
    (who,) = jnp.nonzero(waiting, size=TOGETHER, fill_value=total)
  mine = bounds.at[who].get(mode='fill', fill_value=jnp.inf)
  least = upcoming.at[who].get(mode='fill', fill_value=jnp.inf)
  # The first of those with the least bound; by argmin it would take three times as long.
  group = jnp.where(mine == least[:, None], numbers, groups - 1).min(axis=1)
  query = search.queries.at[who].get(mode='clip').astype(best.dtype)
  squared = jnp.sum(jnp.square(query[:, None] - search.rows[group].astype(best.dtype)), axis=-1)
  row = group[:, None] * GROUP + jnp.arange(GROUP, dtype=jnp.int32)[None]
  best_here = best.at[who].get(mode='clip')
  squared = jnp.where(row < search.row_count, squared, jnp.inf)
  nearest, nearest_row = _least(
    jnp.concatenate([best_here, squared], axis=1),
    jnp.concatenate([index.at[who].get(mode='clip'), row], axis=1),
    best.shape[1],
  )
  others = jnp.where(numbers == group[:, None], jnp.inf, mine)
  return State(
    bounds.at[who, group].set(jnp.inf, mode='drop'),
    upcoming.at[who].set(others.min(axis=1), mode='drop'),
    best.at[who].set(nearest, mode='drop'),
    index.at[who].set(nearest_row, mode='drop'),
    passes.at[who].add(1, mode='drop'),
  )


def _least(squared: jax.Array, rows: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k least of f64[Q, N] and their rows i32[Q, N]; of equal ones the lowest rows first."""

  def one(squared: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    least = squared.min(axis=1)
    row = jnp.where(squared == least[:, None], rows, NOTHING).min(axis=1)
    return jnp.where(rows == row[:, None], jnp.inf, squared), (least, row)

  with jax.enable_x64(True):
    _, (least, row) = lax.scan(one, squared, length=k)
    return jnp.swapaxes(least, 0, 1), jnp.swapaxes(row, 0, 1)
