"""The nearest rows of a memory bank, in operations that every accelerator and converter knows.

nearest.py proves its result, and needs float64, programs for several devices and loops of unknown
length for that. Here the rows lie in groups of such as are near each other. A product says how near
the nearest row of each group is, and the distances to the rows of the few groups that come first
are computed by differences, so that cancellation is in none.

The product is centred by a row of the group, which changes no distance: where it matters, near the
group, its rounding is that of small numbers. What is left of it can put a few rows before the one
that is nearest; they lie together, too, so that the groups which are looked at have it still.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from patch_svdd_jax.system.sharding import PRECISION

# Rows that lie together, and groups of which the products are computed at a time: as many as stay
# in a CPU's cache.
GROUP, TOGETHER = 128, 8

# Groups that are looked at beyond as many as rows are wanted.
SPARE = 3

# Where rows lie that there are not: far from any embedding, and the square is within float32.
FAR = 1e15


def group(rows: np.ndarray) -> np.ndarray:
  """Returns rows f32[N, D], N >= 1, as groups f32[groups, GROUP, D], a multiple of TOGETHER.

  Their order is another; behind them are rows that are FAR.
  """
  missing = -len(rows) % (GROUP * TOGETHER)
  together = rows[np.concatenate(_halves(rows, np.arange(len(rows))))]
  padded = np.pad(together, ((0, missing), (0, 0)), constant_values=FAR)
  return padded.reshape(-1, GROUP, rows.shape[1])


def _halves(rows: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
  """Returns the numbers of rows that lie together, GROUP of them but in the last list.

  They are halved along the axis of their largest variance, and so are the halves.
  """
  if len(numbers) <= GROUP:
    return [numbers]
  values = rows[numbers]
  middle = -(-len(numbers) // GROUP) // 2 * GROUP
  order = np.argpartition(values[:, values.var(axis=0).argmax()], middle)
  return _halves(rows, numbers[order[:middle]]) + _halves(rows, numbers[order[middle:]])


def mean_distance(queries: jax.Array, groups: jax.Array, k: int) -> jax.Array:
  """Returns the mean L2 distance to the k nearest rows.

  Args:
    queries: f32[Q, D].
    groups: f32[groups, GROUP, D], of `group`.
    k: how many, at most the rows that there are.

  Returns:
    f32[Q].
  """
  nearest = _nearest_groups(queries, groups, min(k + SPARE, len(groups)))

  def look(number: jax.Array) -> jax.Array:
    """Returns squared distances f32[Q, GROUP] to the rows of one group for each query, i32[Q]."""
    return jnp.sum(jnp.square(queries[:, None] - groups[number]), axis=-1)

  squared = jnp.moveaxis(lax.map(look, nearest.T), 0, 1).reshape(len(queries), -1)
  return jnp.sqrt(-lax.top_k(-squared, k)[0]).mean(axis=-1)


def _nearest_groups(queries: jax.Array, groups: jax.Array, count: int) -> jax.Array:
  """Returns the groups of the nearest rows, i32[Q, count], as far as a product can tell."""

  def visit(
    kept: tuple[jax.Array, jax.Array], first: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    """Keeps the nearest groups of those that were visited, with minus their squared distances."""
    block = lax.dynamic_slice_in_dim(groups, first, TOGETHER)
    centre = block[:, :1]
    x, y = queries[None] - centre, block - centre
    products = jnp.matmul(x, jnp.swapaxes(y, 1, 2), precision=PRECISION)
    squares = jnp.sum(jnp.square(x), axis=-1)[..., None] + jnp.sum(jnp.square(y), axis=-1)[:, None]
    nearness = (2 * products - squares).max(axis=-1).T
    numbers = jnp.broadcast_to(first + jnp.arange(TOGETHER)[None], nearness.shape)
    nearness, numbers = (
      jnp.concatenate(pair, axis=1) for pair in zip(kept, (nearness, numbers), strict=True)
    )
    best, place = lax.top_k(nearness, count)
    return (best, jnp.take_along_axis(numbers, place, axis=1)), None

  shape = (len(queries), count)
  nothing = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
  (_, numbers), _ = lax.scan(visit, nothing, jnp.arange(0, len(groups), TOGETHER))
  return numbers
