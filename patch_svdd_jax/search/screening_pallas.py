"""The screening product on TPU: only the least of each group leaves the chip's vector memory."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from patch_svdd_jax.search.screening import GROUP, NOWHERE

# Rows and queries whose products are in vector memory and registers at a time.
ROWS, QUERIES = 8192, 256

# Groups that a turn is of: the values of a register, which fewer would fill as well.
LANES = 128


def _kernel(queries_ref, rows_ref, maxima_ref) -> None:  # type: ignore[no-untyped-def]
  """Writes the maxima f32[ROWS / GROUP, Q] of a tile of the rows for all queries."""
  groups, count = maxima_ref.shape

  def visit(turn: jax.Array, _: None) -> None:
    columns = pl.ds(pl.multiple_of(turn * QUERIES, QUERIES), QUERIES)
    queries = queries_ref[columns, :]
    # Eight groups make the eight sublanes of a register: whole registers are stored.
    for first in range(0, groups, 8):
      largest = []
      for group in range(first, first + 8):
        rows = rows_ref[group * GROUP : (group + 1) * GROUP, :]
        products = lax.dot_general(
          rows, queries, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        largest.append(products.max(axis=0, keepdims=True))
      maxima_ref[first : first + 8, columns] = jnp.concatenate(largest, axis=0)

  lax.fori_loop(0, count // QUERIES, visit, None)


@functools.partial(jax.jit, static_argnames='interpret')
def group_maxima(
  query_vectors: jax.Array, vectors: jax.Array, interpret: bool | pltpu.InterpretParams = False
) -> jax.Array:
  """Returns the largest u(q).u(b) of each group, f32[turns, Q, LANES], the groups in their order.

  Args:
    query_vectors: bf16[Q, W], W a multiple of 128; all of them are kept in vector memory.
    vectors: bf16[groups, GROUP, W].
    interpret: runs it without a TPU.

  Behind the last group the values are NOWHERE.
  """
  (count, width), groups = query_vectors.shape, len(vectors)
  padded = jnp.pad(query_vectors, ((0, -count % QUERIES), (0, 0)))
  turns = pl.cdiv(groups, LANES)
  largest = pl.pallas_call(
    _kernel,
    out_shape=jax.ShapeDtypeStruct((turns * LANES, len(padded)), jnp.float32),
    # The last tile may hang over the end: groups do not cross tiles, and those beyond are replaced.
    grid=(pl.cdiv(groups * GROUP, ROWS),),
    in_specs=[
      pl.BlockSpec((len(padded), width), lambda tile: (0, 0)),
      pl.BlockSpec((ROWS, width), lambda tile: (tile, 0)),
    ],
    out_specs=pl.BlockSpec((ROWS // GROUP, len(padded)), lambda tile: (tile, 0)),
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
  )(padded, vectors.reshape(-1, width))
  numbers = jnp.arange(turns * LANES, dtype=jnp.int32)[:, None]
  largest = jnp.where(numbers < groups, largest[:, :count], NOWHERE)
  return jnp.swapaxes(largest.reshape(turns, LANES, count), 1, 2)
