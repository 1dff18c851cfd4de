"""The screening product on TPU: only the least of each group leaves the chip's vector memory."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from patch_svdd_jax.search.screening import GROUP

# Rows and queries whose products are in vector memory and registers at a time.
ROWS, QUERIES = 8192, 256


def _kernel(queries_ref, rows_ref, minima_ref) -> None:  # type: ignore[no-untyped-def]
  """Writes the minima f32[ROWS / GROUP, Q] of a tile of the rows for all queries."""
  groups, count = minima_ref.shape

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
      minima_ref[first : first + 8, columns] = -jnp.concatenate(largest, axis=0)

  lax.fori_loop(0, count // QUERIES, visit, None)


@functools.partial(jax.jit, static_argnames='interpret')
def group_minima(
  query_vectors: jax.Array, vectors: jax.Array, interpret: bool | pltpu.InterpretParams = False
) -> jax.Array:
  """The least -u(q).u(b) of each group, f32[Q, groups].

  Args:
    query_vectors: bf16[Q, W], W a multiple of 128; all of them are kept in vector memory.
    vectors: bf16[groups, GROUP, W].
    interpret: runs it without a TPU.
  """
  (count, width), groups = query_vectors.shape, len(vectors)
  padded = jnp.pad(query_vectors, ((0, -count % QUERIES), (0, 0)))
  minima = pl.pallas_call(
    _kernel,
    out_shape=jax.ShapeDtypeStruct((groups, len(padded)), jnp.float32),
    # The last tile may hang over the end: groups do not cross tiles, and those beyond are dropped.
    grid=(pl.cdiv(groups * GROUP, ROWS),),
    in_specs=[
      pl.BlockSpec((len(padded), width), lambda tile: (0, 0)),
      pl.BlockSpec((ROWS, width), lambda tile: (tile, 0)),
    ],
    out_specs=pl.BlockSpec((ROWS // GROUP, len(padded)), lambda tile: (tile, 0)),
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
  )(padded, vectors.reshape(-1, width))
  return jnp.swapaxes(minima, 0, 1)[:count]
