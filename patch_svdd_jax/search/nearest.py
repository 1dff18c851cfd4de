"""Exact nearest rows of the memory bank, by a screen that proves which rows need no look.

The devices search their parts of the bank, or the whole of it for their share of the queries, as
passes.py does. The result is exact whatever the data: a screen that fits them badly costs time
alone. Distances are those of float64, rounded once; equally near rows come in the order of their
numbers.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import block_sizes, group_products, passes, screening
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.memory_bank import HostBank, MemoryBank
from patch_svdd_jax.search.passes import NOTHING, Found, Rows
from patch_svdd_jax.search.screening import GROUP, Screen
from patch_svdd_jax.system import devices
from patch_svdd_jax.system.sharding import DEVICES, REPLICATED, SHARDED


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


def search(
  queries: jax.Array,
  bank: MemoryBank | HostBank,
  k: int = 1,
  *,
  query_block: int = 0,
  bank_block: int = 0,
) -> Neighbours:
  """Returns the k nearest rows of the memory bank  (k = 1: Yi & Yoon 2020, eq. 7).

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
  sizes = sizes_for(bank, len(queries), query_block, bank_block)
  if isinstance(bank, HostBank):
    answer = _neighbours(queries, *_stream(queries, bank, k, sizes))
  else:
    answer = _search(queries, bank, k, sizes)
  found: Neighbours = answer[0]
  finite = answer[1]
  if not isinstance(finite, jax.core.Tracer) and not finite:
    raise UserError('a query has a NaN or an infinity: check the images and the encoder')
  return found


def sizes_for(
  bank: MemoryBank | HostBank, queries: int, query_block: int = 0, bank_block: int = 0
) -> BlockSizes:
  """Returns the block sizes of a search, chosen for the devices where they are 0.

  Raises:
    UserError: they are out of range.
  """
  chosen = block_sizes.choose(bank.mesh.local_devices[0], bank.groups_on_device, queries)
  sizes = BlockSizes(query_block or chosen.queries, bank_block or chosen.rows)
  if sizes.queries < 1 or sizes.rows < GROUP or sizes.rows % GROUP:
    raise UserError(
      f'query_block={query_block}, bank_block={bank_block}: must be 0 (chosen for the device) or '
      f'positive, and bank_block a multiple of {GROUP}'
    )
  return sizes


@functools.partial(jax.jit, static_argnames=('k', 'sizes'))
def _search(
  queries: jax.Array, bank: MemoryBank, k: int, sizes: BlockSizes
) -> tuple[Neighbours, jax.Array]:
  """Returns the nearest rows, and whether all queries are finite."""
  answer: tuple[Neighbours, jax.Array] = _neighbours(
    queries, *search_on_devices(queries, bank, k, sizes)
  )
  return answer


@jax.jit
def _neighbours(
  queries: jax.Array, squared: jax.Array, indices: jax.Array, taken: jax.Array
) -> tuple[Neighbours, jax.Array]:
  """Makes neighbours of squared distances f64[Q, k] and the number of passes i32[Q]."""
  finite = jnp.isfinite(queries).all(axis=1, keepdims=True)
  with jax.enable_x64(True):
    distances = jnp.sqrt(squared).astype(jnp.float32)
  distances = jnp.where(finite, distances, jnp.nan)
  # The k nearest may lie in as many groups.
  fallback_fraction = jnp.sum(taken > indices.shape[1], dtype=jnp.int32).astype(jnp.float32)
  return Neighbours(distances, indices, fallback_fraction / len(taken)), finite.all()


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
  squared, indices, taken = found
  return squared, indices + first, taken


@functools.partial(jax.jit, static_argnames='k')
def _merge(best: Found, found: Found, k: int) -> Found:
  """Returns the k nearest of two lists of neighbours."""
  with jax.enable_x64(True):
    squared, indices = (
      jnp.concatenate(pair, axis=1) for pair in zip(best[:2], found[:2], strict=True)
    )
    return *passes.least(squared, indices, min(k, squared.shape[1])), jnp.maximum(best[2], found[2])


@functools.partial(jax.jit, static_argnames=('k', 'sizes'))
def search_on_devices(queries: jax.Array, bank: MemoryBank, k: int, sizes: BlockSizes) -> Found:
  """Divides the bank, or else the queries, over the devices."""
  count, layout = len(queries), bank.layout
  if not layout.sharded:
    queries = jnp.pad(queries, ((0, -count % layout.mesh.size), (0, 0)))
  width = bank.vectors.shape[-1]

  def on_device(
    queries: jax.Array,
    rows: jax.Array,
    vectors: jax.Array,
    screen: Screen,
    filled: jax.Array | None,
  ) -> Found:
    size = layout.row_count() if filled is None else filled
    part = Rows(rows, size, layout.group, screen.scale)

    @jax.named_scope('screen')
    def maxima(queries: jax.Array) -> passes.Maxima:
      query_vectors, squared = screening.query_vectors(screen, queries, vectors.dtype, width)
      products = group_products.maxima(query_vectors, vectors, sizes.rows, layout.platform)
      return passes.maxima(products, squared)

    def find(queries: jax.Array) -> Found:
      anew = None if screening.is_tight(screen) else tighten
      return passes.find(queries, part, maxima(queries), k, anew)

    @jax.named_scope('screen')
    def tighten(queries: jax.Array) -> passes.Maxima:
      all_components = Screen(screen.centre, None, screen.scale)
      query_vectors, squared = screening.query_vectors(all_components, queries, jnp.float32)
      products = group_products.maxima_of_rows(
        query_vectors, all_components, rows, part.size, layout.group, sizes.rows
      )
      return passes.maxima(products, squared)

    squared, local, taken = passes.by_parts(find, sizes.queries, queries)
    indices = jnp.where(local < NOTHING, local + layout.first_row(), NOTHING)
    if layout.sharded:
      return _nearest_of_all(squared, indices, taken, k)
    gather = functools.partial(lax.all_gather, axis_name=DEVICES, tiled=True)
    return gather(squared), gather(indices), gather(taken)

  squared, indices, taken = jax.shard_map(
    on_device,
    mesh=layout.mesh,
    in_specs=(
      *(REPLICATED if layout.sharded else SHARDED, layout.spec, layout.spec),
      *(REPLICATED, REPLICATED),
    ),
    out_specs=REPLICATED,
    check_vma=False,
  )(queries, bank.rows, bank.vectors, bank.screen, bank.filled)
  return squared[:count], indices[:count], taken[:count]


def _nearest_of_all(squared: jax.Array, indices: jax.Array, taken: jax.Array, k: int) -> Found:
  """Returns the k nearest of those that the devices have found, f64[Q, k] and i32[Q, k] on each."""
  with jax.enable_x64(True):
    squared = lax.all_gather(squared, DEVICES, axis=1, tiled=True)
    indices = lax.all_gather(indices, DEVICES, axis=1, tiled=True)
    return *passes.least(squared, indices, k), lax.pmax(taken, DEVICES)
