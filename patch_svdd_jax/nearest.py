"""The distance from each query to the nearest row of the memory bank, in full float32.

The bank stays divided over the devices that embedded it. Each searches its part block by block, so
that never more than a block of queries times a block of rows is in memory; then the smallest
distance of all devices wins.

The nearest block is chosen by |b|^2 / 2 - q.b, whose rounding is that of the squared norms around
the bank's mean: of blocks whose best rows differ by less, one may be taken for the other. In that
block the row is chosen, and its distance computed, by the difference form, right to float32.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from patch_svdd_jax.convolution import PRECISION
from patch_svdd_jax.embedding import DEVICES, Embeddings, local_mesh
from patch_svdd_jax.errors import UserError

# Queries that look through their nearest block at the same time.
TOGETHER = 64


class Bank(NamedTuple):
  """A memory bank, ready to be searched.

  The distance does not change when the same point is subtracted from queries and rows, but the
  cancellation in |q|^2 - 2 q.b + |b|^2 does: the bank's mean is subtracted first.

  Attributes:
    rows: f32[devices, blocks, block, D], less the centre; sharded over the devices.
    half_norms: f32[devices, blocks, block], |row|^2 / 2, infinite where a row is padding.
    centre: f32[D], the mean of the rows.
  """

  rows: jax.Array
  half_norms: jax.Array
  centre: jax.Array

  @property
  def size(self) -> int:
    """The number of rows, padding not counted."""
    return int(jnp.sum(jnp.isfinite(self.half_norms), dtype=jnp.int32))


@jax.jit
def _centre(rows: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Subtracts the mean of the valid rows from rows f32[devices, R, D]; returns it too."""
  # The sums of parts first: one float32 sum over millions of rows would lose digits.
  sums = jnp.einsum('drk,dr->dk', rows, valid.astype(jnp.float32), precision=PRECISION)
  centre = sums.sum(axis=0) / valid.sum()
  return rows - centre[None, None], centre


@functools.partial(jax.jit, static_argnames='block')
def arrange(rows: jax.Array, valid: jax.Array, centre: jax.Array, block: int) -> Bank:
  """Lays centred rows f32[devices, R, D] out in blocks; not valid[devices, R] means padding."""
  devices, per_device, dim = rows.shape
  block = min(block, per_device)
  padding = -per_device % block
  rows = jnp.pad(jnp.where(valid[..., None], rows, 0.0), ((0, 0), (0, padding), (0, 0)))
  valid = jnp.pad(valid, ((0, 0), (0, padding)))
  half_norms = jnp.where(valid, jnp.sum(rows**2, axis=-1) / 2, jnp.inf)
  return Bank(rows.reshape(devices, -1, block, dim), half_norms.reshape(devices, -1, block), centre)


def build_bank(embeddings: Embeddings, block: int) -> Bank:
  """Arranges embeddings for the search, on the devices where they are.

  Args:
    embeddings: of one scale.
    block: rows whose distances to a block of queries are in memory at a time.
  """
  devices, images, patches, dim = embeddings.rows.shape
  valid = jnp.repeat(embeddings.valid, patches, axis=1)
  rows, centre = _centre(embeddings.rows.reshape(devices, images * patches, dim), valid)
  return arrange(rows, valid, centre, block)


def _nearest_block(queries: jax.Array, rows: jax.Array, half_norms: jax.Array) -> jax.Array:
  """Which of the blocks f32[blocks, block, D] holds the row nearest to each query, i32[Q]."""

  def visit(
    best: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array, jax.Array]
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    rows, half_norms, block = part
    products = lax.dot_general(queries, rows, (((1,), (1,)), ((), ())), precision=PRECISION)
    # (|q - b|^2 - |q|^2) / 2: the query's own norm does not choose. The minimum alone keeps pace
    # with the product; the column where it stands would take twice the product's time on a CPU.
    smallest = (half_norms[None] - products).min(axis=1)
    nearer = smallest < best[0]
    return (jnp.where(nearer, smallest, best[0]), jnp.where(nearer, block, best[1])), None

  none_yet = (jnp.full(len(queries), jnp.inf), jnp.zeros(len(queries), jnp.int32))
  blocks = jnp.arange(len(rows), dtype=jnp.int32)
  (_, nearest), _ = lax.scan(visit, none_yet, (rows, half_norms, blocks))
  return nearest


def _search_block(
  queries: jax.Array, blocks: jax.Array, rows: jax.Array, half_norms: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Distances f32[Q] and row numbers i32[Q] of the nearest row in one block for each query.

  The difference form has no cancellation: it gives the digits of the distance.
  """

  def one(query_and_block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    query, block = query_and_block
    squared = jnp.sum((query[None] - rows[block]) ** 2, axis=-1)
    squared = jnp.where(jnp.isfinite(half_norms[block]), squared, jnp.inf)
    column = jnp.argmin(squared).astype(jnp.int32)
    return jnp.sqrt(squared[column]), block * rows.shape[1] + column

  return lax.map(one, (queries, blocks), batch_size=TOGETHER)


def _search_rows(
  queries: jax.Array, rows: jax.Array, half_norms: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Distances f32[Q] and row numbers i32[Q] of the nearest of rows f32[blocks, block, D]."""
  blocks = _nearest_block(queries, rows, half_norms)
  return _search_block(queries, blocks, rows, half_norms)


def _search_device(
  queries: jax.Array, rows: jax.Array, half_norms: jax.Array, query_block: int
) -> tuple[jax.Array, jax.Array]:
  """Searches one device's f32[1, blocks, block, D], then finds the nearest over all devices."""
  rows, half_norms = rows[0], half_norms[0]
  count, dim = queries.shape
  padded = jnp.pad(queries, ((0, -count % query_block), (0, 0))).reshape(-1, query_block, dim)
  distance, row = lax.map(lambda part: _search_rows(part, rows, half_norms), padded)
  distance, row = distance.reshape(-1)[:count], row.reshape(-1)[:count]
  # A device whose images are all padding has found nothing.
  distance = jnp.where(jnp.isfinite(half_norms).any(), distance, jnp.inf)
  row += lax.axis_index(DEVICES).astype(jnp.int32) * half_norms.size
  smallest = lax.pmin(distance, DEVICES)
  found = jnp.where(distance == smallest, row, jnp.iinfo(jnp.int32).max)
  return smallest, lax.pmin(found, DEVICES)


@functools.partial(jax.jit, static_argnames='query_block')
def _search(queries: jax.Array, bank: Bank, query_block: int) -> tuple[jax.Array, jax.Array]:
  everywhere, divided = PartitionSpec(), PartitionSpec(DEVICES)
  search = jax.shard_map(
    functools.partial(_search_device, query_block=query_block),
    mesh=local_mesh(),
    in_specs=(everywhere, divided, divided),
    out_specs=(everywhere, everywhere),
    check_vma=False,
  )
  return search(queries - bank.centre[None], bank.rows, bank.half_norms)


def search(queries: jax.Array, bank: Bank, query_block: int) -> tuple[jax.Array, jax.Array]:
  """The L2 distance to the nearest normal patch  (Yi & Yoon 2020, eq. 7).

  Args:
    queries: f32[Q, D].
    bank: of the same D.
    query_block: queries whose distances to a block of rows are in memory at a time.

  Returns:
    Distances f32[Q], and i32[Q]: the row in the bank's order, padding counted, the smallest of
    those equally near.

  Raises:
    UserError: the queries have another D than the bank.
  """
  if queries.shape[1] != bank.centre.shape[0]:
    raise UserError(
      f'queries of {queries.shape[1]} dimensions cannot be compared with a memory bank of '
      f'{bank.centre.shape[0]}: fit and score with the same config.encoder.embed_dim'
    )
  return _search(queries, bank, min(query_block, len(queries)))
