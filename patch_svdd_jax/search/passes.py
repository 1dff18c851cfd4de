"""The nearest rows on one device: a screen, a first pass of all queries, further passes of a few.

1. One product of screening vectors (screening.py) gives, for each query and each group of rows, a
   proven lower bound of the distance to all rows of the group; of the products only the groups'
   maxima are kept, and those of each block of groups, by which the least bounds are found.
2. The first pass takes the groups of the least bounds of every query at once, half as many again
   as k, and computes the distances to their rows by the difference form in float64. A query is
   proven, and rests, if the next bound is above the k-th distance.
3. The others begin anew: some of them at a time take their next few groups, until they are proven,
   too, or have taken so many that a product would have been cheaper.
4. Those are screened anew by all components in float32, whose bounds are as high as bounds can be,
   and go on by these. So queries for which the screen was not made, as those of anomalous patches,
   take a plain scan more, not a scan of every group.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from patch_svdd_jax.search import screening

# Queries that take further passes at the same time, and groups that each takes at a time.
TOGETHER, GROUPS = 64, 2

# Queries that are screened anew at a time.
SCREENED_ANEW = 256

# Values of rows that the first pass has in memory at a time.
VALUES = 2**17

# Turns that are written out: a few short ones run faster together.
UNROLLED = 4

# Stands for the product of a group that was scanned.
SCANNED = float(jnp.finfo(jnp.float32).min)

NOTHING = jnp.iinfo(jnp.int32).max

# Squared distances f64[Q, k], row numbers i32[Q, k], and how many passes they took, i32[Q].
Found = tuple[jax.Array, jax.Array, jax.Array]


class Rows(NamedTuple):
  """The rows on a device.

  Attributes:
    groups: f32[groups, group * D], the rows of each group one behind the other.
    size: i32[], how many rows there are, from the first on.
    group: rows of a group.
    scale: f32[], the screen's.
  """

  groups: jax.Array
  size: jax.Array
  group: int
  scale: jax.Array


class Maxima(NamedTuple):
  """The largest screening products, from which bounds follow.

  Attributes:
    groups: f32[blocks, Q, together], of each group.
    blocks: f32[blocks, Q], of each block of groups.
    squared: f32[Q], the queries' |x|^2.
  """

  groups: jax.Array
  blocks: jax.Array
  squared: jax.Array


class State(NamedTuple):
  """Holds what changes from pass to pass.

  Attributes:
    maxima: SCANNED of groups that were.
    upcoming: f32[Q], the least bound of the groups that were not.
    squared, indices, passes: what was found, as `Found`.
  """

  maxima: Maxima
  upcoming: jax.Array
  squared: jax.Array
  indices: jax.Array
  passes: jax.Array


def maxima(products: jax.Array, squared: jax.Array) -> Maxima:
  """Returns what the bounds of groups follow from.

  Args:
    products: f32[blocks, Q, together], the largest screening product of each group.
    squared: f32[Q], the queries' |x|^2.
  """
  return Maxima(products, products.max(axis=2), squared)


@jax.named_scope('look')
def find(
  queries: jax.Array,
  rows: Rows,
  maxima: Maxima,
  k: int,
  tighten: Callable[[jax.Array], Maxima] | None,
) -> Found:
  """Finds the k nearest of the rows for each query f32[Q, D].

  Args:
    queries: f32[Q, D].
    rows: among which.
    maxima: the queries' screening products.
    k: how many.
    tighten: some queries f32[P, D] to products that have the highest bounds; None where `maxima`
      are such.
  """
  count, groups = len(queries), maxima.groups.shape[0] * maxima.groups.shape[2]
  squared, indices, proven = _first_pass(queries, rows, maxima, k)
  most = max(GROUPS * k, groups // screening.PRODUCT) if tighten else groups
  found, left = _further_passes(queries, rows, maxima, k, ~proven, most)
  with jax.enable_x64(True):
    kept = proven[:, None]
    found = (
      jnp.where(kept, squared, found[0]),
      jnp.where(kept, indices, found[1]),
      found[2] + k,
    )
  if not tighten:
    return found

  def screen_anew(state: tuple[Found, jax.Array]) -> tuple[Found, jax.Array]:
    found, left = state
    (who,) = jnp.nonzero(left, size=SCREENED_ANEW, fill_value=count)
    some = queries.at[who].get(mode='clip')
    others, _ = _further_passes(some, rows, tighten(some), k, who < count, groups)
    with jax.enable_x64(True):
      squared, indices, taken = (
        old.at[who].set(new, mode='drop') for old, new in zip(found, others, strict=True)
      )
    return (squared, indices, taken), left.at[who].set(False, mode='drop')

  return lax.while_loop(lambda state: state[1].any(), screen_anew, (found, left))[0]


def by_parts(
  find: Callable[..., tuple[jax.Array, ...]], size: int, *arrays: jax.Array
) -> tuple[jax.Array, ...]:
  """Calls `find` with equal parts of the arrays, of at most `size`, and joins what it returns."""
  count = len(arrays[0])
  parts = -(-count // size)
  if parts == 1:
    return find(*arrays)
  part = -(-count // parts)
  padded = (
    jnp.pad(array, ((0, parts * part - count), *((0, 0),) * (array.ndim - 1))) for array in arrays
  )
  found = lax.map(
    lambda each: find(*each),
    tuple(array.reshape(parts, part, *array.shape[1:]) for array in padded),
  )
  return tuple(array.reshape(parts * part, *array.shape[2:])[:count] for array in found)


def _first_pass(
  queries: jax.Array, rows: Rows, maxima: Maxima, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns squared distances f64[Q, k], rows i32[Q, k], and which are proven, bool[Q]."""
  everyone = jnp.arange(len(queries))
  # Some more than the nearest rows can lie in, for bounds that are not quite tight.
  most = k + k // 2
  bounds, groups, _ = _nearest_groups(maxima, everyone, most + 1)

  def scan(queries: jax.Array, bounds: jax.Array, groups: jax.Array) -> tuple[jax.Array, ...]:
    squared, indices = least(*_scan_groups(queries, rows, bounds[:, :most], groups[:, :most]), k)
    return squared, indices, ~may_improve(bounds[:, most], squared, rows)

  at_a_time = max(1, VALUES // (most * rows.groups.shape[1]))
  squared, indices, proven = by_parts(scan, at_a_time, queries, bounds, groups)
  return squared, indices, proven


def _further_passes(
  queries: jax.Array, rows: Rows, maxima: Maxima, k: int, wanted: jax.Array, most: int
) -> tuple[Found, jax.Array]:
  """Scans groups for some queries until no other can hold one of the k nearest.

  Args:
    queries: f32[Q, D].
    rows: among which.
    maxima: the queries' screening products.
    k: how many.
    wanted: bool[Q], which queries.
    most: passes of a query, after which it is left.

  Returns:
    What was found, and which queries were left, bool[Q].
  """
  count = len(queries)

  def unproven(state: State) -> jax.Array:
    return wanted & may_improve(state.upcoming, state.squared, rows)

  def pending(state: State) -> jax.Array:
    return unproven(state) & (state.passes < most)

  def scan(state: State) -> State:
    (who,) = jnp.nonzero(pending(state), size=TOGETHER, fill_value=count)
    bounds, groups, (turns, inside) = _nearest_groups(state.maxima, who, GROUPS)
    query = queries.at[who].get(mode='clip')
    squared, numbers = _scan_groups(query, rows, bounds, groups)
    with jax.enable_x64(True):
      squared, numbers = (
        jnp.concatenate(pair, axis=1)
        for pair in (
          (state.squared.at[who].get(mode='clip'), squared),
          (state.indices.at[who].get(mode='clip'), numbers),
        )
      )
    squared, numbers = least(squared, numbers, k)
    of_groups = state.maxima.groups.at[turns, who[:, None]].set(inside, mode='drop')
    of_blocks = state.maxima.blocks.at[turns, who[:, None]].set(inside.max(axis=2), mode='drop')
    left = maxima.squared.at[who].get(mode='clip')
    upcoming = _bounds(of_blocks.at[:, who].get(mode='clip').max(axis=0), left)
    with jax.enable_x64(True):
      return State(
        Maxima(of_groups, of_blocks, maxima.squared),
        state.upcoming.at[who].set(upcoming, mode='drop'),
        state.squared.at[who].set(squared, mode='drop'),
        state.indices.at[who].set(numbers, mode='drop'),
        state.passes.at[who].add(GROUPS, mode='drop'),
      )

  with jax.enable_x64(True):
    start = State(
      maxima,
      jnp.zeros(count, jnp.float32),
      jnp.full((count, k), jnp.inf, jnp.float64),
      jnp.full((count, k), NOTHING, jnp.int32),
      jnp.zeros(count, jnp.int32),
    )
  end = lax.while_loop(lambda state: pending(state).any(), scan, start)
  return (end.squared, end.indices, end.passes), unproven(end)


def _nearest_groups(
  maxima: Maxima, who: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
  """Returns the groups of the least bounds for some queries, those of equal bounds in their order.

  The first so many lie in as many blocks, those with the least bounds.

  Args:
    maxima: of all queries.
    who: i32[P], numbers of queries.
    count: how many groups.

  Returns:
    Bounds f32[P, count], infinite where there are no more groups, ascending; the groups' numbers,
    i32[P, count]; and for where to note that they were scanned, their blocks i32[P, B] and these
    blocks' maxima f32[P, B, together], SCANNED of the groups returned.
  """
  blocks, _, together = maxima.groups.shape
  squared = maxima.squared.at[who].get(mode='clip')
  of_blocks = _bounds(maxima.blocks.at[:, who].get(mode='clip').T, squared)
  numbers = jnp.broadcast_to(jnp.arange(blocks, dtype=jnp.int32)[None], of_blocks.shape)
  _, turns = _first(of_blocks, numbers, min(count, blocks))
  inside = maxima.groups.at[turns, who[:, None]].get(mode='clip')
  numbers = turns[..., None] * together + jnp.arange(together, dtype=jnp.int32)[None, None]
  flat = inside.reshape(len(who), -1), numbers.reshape(len(who), -1)
  bounds, groups = _first(_bounds(flat[0], squared), flat[1], count)
  scanned = (numbers[..., None] == groups[:, None, None]).any(axis=-1)
  # Fused with what reads the groups' rows, they would be found again for every value.
  bounds, groups = lax.optimization_barrier((bounds, groups))
  return bounds, groups, (turns, jnp.where(scanned, SCANNED, inside))


def _first(bounds: jax.Array, numbers: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Returns the least of bounds f32[P, N] and their numbers i32[P, N]; the first of equals.

  Blocks stand by their numbers, and their groups by their blocks' bounds: in both, those with
  bounds of 0 by their numbers.
  """
  if count <= UNROLLED or count > bounds.shape[1]:
    return least(bounds, numbers, count)
  negative, places = lax.top_k(-bounds, count)
  return -negative, jnp.take_along_axis(numbers, places, axis=1)


def _bounds(products: jax.Array, squared: jax.Array) -> jax.Array:
  """Returns bounds of products f32[P, ...] and |x|^2 f32[P]; infinite of those SCANNED."""
  bounds = screening.lower_bounds(-products, squared)
  return jnp.where(products == SCANNED, jnp.inf, bounds)


def may_improve(bounds: jax.Array, squared: jax.Array, rows: Rows) -> jax.Array:
  """Returns whether groups of such bounds f32[P] can hold one of the nearest rows, bool[P].

  Args:
    bounds: the least of the groups that were not scanned.
    squared: f64[P, k] of the nearest rows of those that were, ascending.
    rows: with the screen's scale.
  """
  dim = rows.groups.shape[1] // rows.group
  with jax.enable_x64(True):
    worst = squared[:, -1].astype(jnp.float64)
    # Wider than float64 rounds, also where it is put together from pairs of float32, as on TPUs.
    unit = rows.scale.astype(jnp.float64) ** 2 * (1 + (dim + 4) * 2.0**-44)
    # Nothing is nearer than 0, and of groups with bounds of 0 the first comes first.
    return jnp.isfinite(bounds) & (bounds <= worst * unit) & (worst > 0)


def _scan_groups(
  queries: jax.Array, rows: Rows, bounds: jax.Array, groups: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes the distances to the rows of some groups.

  Args:
    queries: f32[P, D].
    rows: of which.
    bounds: f32[P, G]; where they are infinite, there is no group.
    groups: i32[P, G].

  Returns:
    Squared distances f64[P, G * group], and the rows' numbers, i32[P, G * group]; infinite and
    NOTHING where there is no row.
  """
  shape = (*groups.shape, rows.group, queries.shape[1])
  with jax.enable_x64(True):
    near = rows.groups.at[groups].get(mode='clip').reshape(shape).astype(jnp.float64)
    query = queries.astype(jnp.float64)[:, None, None]
    squared = jnp.sum(jnp.square(query - near), axis=-1)
    within = jnp.arange(rows.group, dtype=jnp.int32)[None, None]
    numbers = groups[..., None] * rows.group + within
    there = (numbers < rows.size) & jnp.isfinite(bounds)[..., None]
    squared = jnp.where(there, squared, jnp.inf).reshape(len(queries), -1)
    return squared, jnp.where(there, numbers, NOTHING).reshape(len(queries), -1)


def least(squared: jax.Array, rows: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """Returns the k least of f64[Q, N] and their rows i32[Q, N]; of equals the lowest rows."""

  def one(squared: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    least = squared.min(axis=1)
    row = jnp.where(squared == least[:, None], rows, NOTHING).min(axis=1)
    return jnp.where(rows == row[:, None], jnp.inf, squared), (least, row)

  with jax.enable_x64(True):
    _, (least, row) = lax.scan(one, squared, length=k, unroll=min(k, UNROLLED))
    return jnp.swapaxes(least, 0, 1), jnp.swapaxes(row, 0, 1)
