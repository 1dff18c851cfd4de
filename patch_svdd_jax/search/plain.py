"""The nearest rows by one matrix product in float32, block by block: no screen, and no proof.

For where float32 is enough and all happens inside of one compiled program. nearest.py is exact, and
export_search.py tells rows apart that are much nearer to each other than to the origin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.system.sharding import PRECISION

# Rows whose products with all queries are in memory at a time.
ROWS = 1024


class Blocks(NamedTuple):
  """Rows in blocks, the last one padded.

  Attributes:
    rows: f32[blocks, ROWS, D].
    squares: f32[blocks, ROWS], their squared norms; infinite where there is no row.
  """

  rows: jax.Array
  squares: jax.Array


def divide(rows: jax.Array) -> Blocks:
  """Returns rows f32[N, D] in blocks."""
  padded = jnp.pad(rows, ((0, -len(rows) % ROWS), (0, 0)))
  squares = jnp.where(jnp.arange(len(padded)) < len(rows), jnp.sum(padded**2, axis=1), jnp.inf)
  return Blocks(padded.reshape(-1, ROWS, rows.shape[1]), squares.reshape(-1, ROWS))


def nearest(queries: jax.Array, blocks: Blocks, k: int = 1) -> tuple[jax.Array, jax.Array]:
  """Finds the k rows of the least |r|^2 - 2 q r, which is |q - r|^2 - |q|^2.

  It is rounded to float32: the nearer the origin lies to the rows, the less of it is lost. Of rows
  that are equally near up to rounding any may be found.

  Args:
    queries: f32[Q, D].
    blocks: of `divide`.
    k: how many, at most the rows that there are.

  Returns:
    |r|^2 - 2 q r, ascending, f32[Q, k], and the numbers of the rows, i32[Q, k].
  """

  def visit(
    best: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array, jax.Array]
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    rows, squares, first = block
    products = lax.dot_general(queries, rows, (((1,), (1,)), ((), ())), precision=PRECISION)
    values = squares[None] - 2 * products
    # Where nobody asks for the numbers, the compiler leaves them out.
    numbers = jnp.broadcast_to(first + jnp.arange(ROWS, dtype=jnp.int32)[None], values.shape)
    if k == 1:
      least = values.min(axis=1, keepdims=True)
      # The first of equal ones; on a CPU twice as fast as argmin.
      number = jnp.where(values == least, numbers, numbers[:, -1:]).min(axis=1, keepdims=True)
      return (jnp.minimum(best[0], least), jnp.where(least < best[0], number, best[1])), None
    values, numbers = (
      jnp.concatenate(pair, axis=1) for pair in zip(best, (values, numbers), strict=True)
    )
    nearness, place = lax.top_k(-values, k)
    return (-nearness, jnp.take_along_axis(numbers, place, axis=1)), None

  nothing = jnp.full((len(queries), k), jnp.inf), jnp.zeros((len(queries), k), jnp.int32)
  firsts = jnp.arange(0, blocks.squares.size, ROWS, dtype=jnp.int32)
  return lax.scan(visit, nothing, (*blocks, firsts))[0]
