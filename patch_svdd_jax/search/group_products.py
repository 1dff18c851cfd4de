"""The screening product: of each group of rows, only the largest is kept."""

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.search import screening, screening_pallas
from patch_svdd_jax.search.screening import NOWHERE, Screen
from patch_svdd_jax.system.sharding import PRECISION


def maxima(queries: jax.Array, vectors: jax.Array, bank_block: int, platform: str) -> jax.Array:
  """Returns the largest u(q).u(b) of each group of rows.

  Args:
    queries: screening vectors [Q, W].
    vectors: of the rows, [groups, group, W], of the same type.
    bank_block: rows whose products are in memory at a time, rounded to whole groups; a TPU's kernel
      has blocks of its own.
    platform: of the devices.

  Returns:
    f32[turns, Q, groups of a turn], the groups in their order.
  """
  groups, group, width = vectors.shape
  if platform == 'tpu' and vectors.dtype == jnp.bfloat16:
    of_kernel: jax.Array = screening_pallas.group_maxima(queries, vectors)
    return of_kernel
  together = max(1, min(bank_block // group, groups))
  missing = -groups % together
  padded = jnp.pad(vectors, ((0, missing), (0, 0), (0, 0)))

  def visit(rows: jax.Array) -> jax.Array:
    return _largest(queries, rows, group)

  largest: jax.Array = lax.map(visit, padded.reshape(-1, together * group, width))
  # Vectors of nothing have products of 0, as a row might.
  return largest.at[-1, :, together - missing :].set(NOWHERE) if missing else largest


def maxima_of_rows(
  queries: jax.Array, screen: Screen, rows: jax.Array, size: jax.Array, group: int, bank_block: int
) -> jax.Array:
  """Returns as `maxima`, by vectors of all components in float32 that are made on the way.

  Args:
    queries: screening vectors f32[Q, D + 2].
    screen: a tight one.
    rows: f32[groups, group * D].
    size: i32[], how many rows there are.
    group: rows of a group.
    bank_block: rows whose products are in memory at a time, rounded to whole groups.
  """
  together = max(1, min(bank_block // group, len(rows)))

  def visit(turn: jax.Array) -> jax.Array:
    # Taken as they lie: all rows at once would be turned round on a TPU.
    numbers = turn * together + jnp.arange(together)
    block = rows.at[numbers].get(mode='clip').reshape(together * group, -1)
    valid = numbers[:, None] * group + jnp.arange(group)[None] < size
    vectors = screening.row_vectors(screen, block, valid.reshape(-1), jnp.float32)
    return _largest(queries, vectors, group)

  largest: jax.Array = lax.map(visit, jnp.arange(-(-len(rows) // together)))
  return largest


def _largest(queries: jax.Array, rows: jax.Array, group: int) -> jax.Array:
  """Returns each group's largest product, f32[Q, groups], of [Q, W], [groups * group, W]."""
  products = lax.dot_general(
    queries,
    rows,
    (((1,), (1,)), ((), ())),
    precision=PRECISION if queries.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  return products.reshape(len(queries), -1, group).max(axis=-1)
