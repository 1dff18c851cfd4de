"""Fewer rows for the memory bank: k-center greedy, the very rows that the plain algorithm takes.

From one row on, the row farthest from those chosen is chosen next (Gonzalez 1985; Sener & Savarese
2018; PatchCore's coreset, Roth et al. 2022, section 3.2). The rows chosen cover the bank within
twice the smallest radius that as many rows can.

Written down plainly, every choice reads the whole bank. Here a pass over the bank serves hundreds:
it leaves, for every row, the squared distance to its nearest chosen row, and brings back the
`CANDIDATES` farthest rows and the farthest of the others, the bar. Distances only fall, so while
the farthest candidate lies above the bar it is the farthest row of all: the greedy algorithm goes
on among candidates alone. Then the next pass takes the new choices to all rows. A bank larger than
the devices' memory therefore is read from the host once a pass, not once a choice, and gives the
same rows. Two-level schemes, which select within parts first (Malkomes et al. 2015), read it once
or twice but promise four times the smallest radius only. (At worst, where all rows are about
equally far, a pass serves one choice, as in the plain algorithm.)

Distances are computed by the difference form, in float32. A pass screens by a matrix product first:
with x' and c' the row and the choice less any common point, u = 2^-24 and e = (8 D + 32) u,

  (1 - e) |x'|^2 + (1 - e) |c'|^2 - 2 x'.c'  <=  |x - c|^2 as the difference form computes it.

The left side's roundings, against |x'|^2 + |c'|^2: u D for the product, as 2 |x'| |c'| is no more;
u D for the norms; 6 u for putting the three together; 5 u for subtracting the point, which moves
x' and c' by u of their lengths. The right side's are (D + 2) u of |x - c|^2, which is no more than
2 (|x'|^2 + |c'|^2). Together (4 D + 15) u, and e leaves twice the room, as a TPU puts a float32
product together from bfloat16 ones. Only rows whose bound is below their distance are computed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import Progress, pad_images
from patch_svdd_jax.system.sharding import DEVICES, PRECISION, REPLICATED, SHARDED, local_mesh

# Rows among which the greedy algorithm goes on between two passes, and choices it makes there.
CANDIDATES = 4096
CHOICES = 1024
# Rows and choices whose products are in memory at a time; rows computed at a time.
BLOCK, GROUP, TOGETHER = 512, 256, 64
# Of squared distances to the first row: twice such a distance still squares to a float32.
LARGEST = 1e37


class Farthest(NamedTuple):
  """The rows farthest from those chosen, on all devices; the last of them is the bar.

  Attributes:
    squared: f32[C + 1], squared distances, falling; -1 where there are fewer rows.
    indices: i32[C + 1], lowest first among equals.
    rows: f32[C + 1, D].
  """

  squared: jax.Array
  indices: jax.Array
  rows: jax.Array


class Chosen(NamedTuple):
  """What the greedy algorithm chose between two passes, on all devices.

  Attributes:
    number: i32[], how many.
    indices: i32[CHOICES].
    rows: f32[CHOICES, D].
  """

  number: jax.Array
  indices: jax.Array
  rows: jax.Array


# (rows, state, choice, farthest, first) -> squared distances and the farthest rows
Lower = Callable[[jax.Array, jax.Array, Any, Farthest, jax.Array], tuple[jax.Array, Farthest]]


def _nothing_yet(dim: int) -> Farthest:
  count = CANDIDATES + 1
  # Arrays of the host: they go to any devices, and there is nothing to compile.
  nothing: Any = (
    np.full(count, -1, np.float32),
    np.zeros(count, np.int32),
    np.zeros((count, dim), np.float32),
  )
  return Farthest(*nothing)


def lower_bounds(
  rows: jax.Array, point: jax.Array, chosen: jax.Array, real: jax.Array
) -> jax.Array:
  """Bounds squared distances from below, f32[G, B]; infinite where a choice is not real."""
  rows, chosen = rows - point[None], chosen - point[None]
  shrink = 1 - (8 * rows.shape[1] + 32) * 2.0**-24
  row_norms = shrink * jnp.sum(rows**2, axis=1)
  norms = jnp.where(real, shrink * jnp.sum(chosen**2, axis=1), jnp.inf)
  products = lax.dot_general(chosen, rows, (((1,), (1,)), ((), ())), precision=PRECISION)
  return norms[:, None] + row_norms[None] - 2 * products


def _compute(
  rows: jax.Array, squared: jax.Array, bounds: jax.Array, chosen: jax.Array
) -> jax.Array:
  """Lowers f32[T] to the smallest distances to chosen f32[G, D], given their bounds f32[G, T].

  The choice of the lowest bound is computed, then the next, until no bound is below the distance.
  """
  numbers = jnp.arange(len(chosen), dtype=jnp.int32)[:, None]

  def pending(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    squared, _, lowest = state
    return (lowest < squared).any()

  def compute(
    state: tuple[jax.Array, jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    squared, bounds, lowest = state
    # On a CPU twice as fast as argmin. Where all are infinite it is the last one once more.
    nearest = jnp.where(bounds == lowest[None], numbers, len(chosen) - 1).min(axis=0)
    squared = jnp.minimum(squared, jnp.sum((rows - chosen[nearest]) ** 2, axis=1))
    bounds = jnp.where(numbers == nearest[None], jnp.inf, bounds)
    return squared, bounds, bounds.min(axis=0)

  return lax.while_loop(pending, compute, (squared, bounds, bounds.min(axis=0)))[0]


def _lower_block(
  rows: jax.Array, squared: jax.Array, point: jax.Array, chosen: jax.Array, real: jax.Array
) -> jax.Array:
  """Lowers f32[B], a block's squared distances, to those to chosen f32[G, D]."""

  def compute(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    squared, wanted = state
    (which,) = jnp.nonzero(wanted, size=min(TOGETHER, len(rows)), fill_value=len(rows))
    # Past the end, the last row is computed once more, and dropped.
    some, their_squared = (part.at[which].get(mode='clip') for part in (rows, squared))
    bounds = lower_bounds(some, point, chosen, real)
    lowered = _compute(some, their_squared, bounds, chosen)
    return (
      squared.at[which].set(lowered, mode='drop'),
      wanted.at[which].set(False, mode='drop'),
    )

  wanted = lower_bounds(rows, point, chosen, real).min(axis=0) < squared
  return lax.while_loop(lambda state: state[1].any(), compute, (squared, wanted))[0]


def _lower(rows: jax.Array, squared: jax.Array, chosen: Chosen) -> jax.Array:
  """Lowers f32[R], one device's squared distances, to those to the rows just chosen."""
  block = min(BLOCK, len(rows))
  group = min(GROUP, len(chosen.rows))
  real = jnp.arange(len(chosen.rows)) < chosen.number
  point = jnp.where(real[:, None], chosen.rows, 0).sum(axis=0) / chosen.number

  def lower_block(index: jax.Array, squared: jax.Array) -> jax.Array:
    # The last block reaches back into the one before: that changes nothing, and pads nothing.
    first = jnp.minimum(index * block, len(rows) - block)
    part = lax.dynamic_slice_in_dim(rows, first, block)

    def lower_by_group(index: jax.Array, lowered: jax.Array) -> jax.Array:
      choices, are_real = (
        lax.dynamic_slice_in_dim(array, index * group, group) for array in (chosen.rows, real)
      )
      return _lower_block(part, lowered, point, choices, are_real)

    lowered = lax.dynamic_slice_in_dim(squared, first, block)
    groups = (chosen.number + group - 1) // group
    lowered = lax.fori_loop(0, groups, lower_by_group, lowered)
    return lax.dynamic_update_slice_in_dim(squared, lowered, first, axis=0)

  lowered: jax.Array = lax.fori_loop(0, -(-len(rows) // block), lower_block, squared)
  return lowered


def _merge(farthest: Farthest, rows: jax.Array, squared: jax.Array, first: jax.Array) -> Farthest:
  """Merges each device's rows f32[R, D], numbered from `first` on, into the farthest of all."""
  count, share = len(farthest.squared), len(rows)
  first += lax.axis_index(DEVICES).astype(jnp.int32) * share
  largest, found = lax.top_k(squared, min(count, share))
  largest, found = (
    lax.all_gather(part, DEVICES, tiled=True) for part in (largest, found.astype(jnp.int32) + first)
  )
  # Rows of lower numbers come first, and top_k keeps the order of equals.
  all_squared = jnp.concatenate([farthest.squared, largest])
  all_squared, places = lax.top_k(all_squared, count)
  indices = jnp.concatenate([farthest.indices, found])[places]
  # Every device fills in its own rows: nothing but the rows wanted is sent.
  own = indices - first
  is_own = (own >= 0) & (own < share) & (places >= count)
  sent = jnp.where(is_own[:, None], rows.at[own].get(mode='clip'), 0)
  had = farthest.rows.at[places].get(mode='clip')
  fetched = jnp.where((places < count)[:, None], had, lax.psum(sent, DEVICES))
  return Farthest(all_squared, indices, fetched)


def _on_devices(lower: Callable[[jax.Array, jax.Array, Any], jax.Array], mesh: Mesh) -> Lower:
  """Returns run(rows, state, choice, farthest, first) -> squared distances and farthest.

  Each device lowers its own: lower(rows f32[R, D], state [R], choice) -> f32[R].
  """

  def body(
    rows: jax.Array, state: jax.Array, choice: Any, farthest: Farthest, first: jax.Array
  ) -> tuple[jax.Array, Farthest]:
    rows = rows.reshape(-1, rows.shape[-1])
    squared = lower(rows, state, choice)
    return squared, _merge(farthest, rows, squared, first)

  return jax.shard_map(
    body,
    mesh=mesh,
    in_specs=(SHARDED, SHARDED, REPLICATED, REPLICATED, REPLICATED),
    out_specs=(SHARDED, REPLICATED),
    check_vma=False,
  )


@functools.partial(jax.jit, static_argnames='mesh')
def _begin(
  rows: jax.Array,
  valid: jax.Array,
  start: jax.Array,
  farthest: Farthest,
  first: jax.Array,
  *,
  mesh: Mesh,
) -> tuple[jax.Array, Farthest]:
  """Returns squared distances f32[N] to the first choice, -1 if not valid, infinite for NaN."""

  def squared_to(rows: jax.Array, valid: jax.Array, start: jax.Array) -> jax.Array:
    squared = jnp.sum((rows - start[None]) ** 2, axis=1)
    return jnp.where(valid, jnp.where(jnp.isnan(squared), jnp.inf, squared), -1)

  return _on_devices(squared_to, mesh)(rows, valid, start, farthest, first)


@functools.partial(jax.jit, static_argnames='mesh', donate_argnames='squared')
def pass_over(
  rows: jax.Array,
  squared: jax.Array,
  chosen: Chosen,
  farthest: Farthest,
  first: jax.Array,
  *,
  mesh: Mesh,
) -> tuple[jax.Array, Farthest]:
  """Returns squared distances f32[N] to all rows chosen so far."""
  return _on_devices(_lower, mesh)(rows, squared, chosen, farthest, first)


@functools.partial(jax.jit, static_argnames='size')
def choose(farthest: Farthest, wanted: jax.Array, size: int) -> Chosen:
  """Goes on greedily among the farthest rows, as long as the farthest of all is among them."""
  bar, bar_index = farthest.squared[-1], farthest.indices[-1]
  indices, columns = farthest.indices[:-1], farthest.rows[:-1].T

  def best(squared: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = squared.max()
    place = jnp.where(squared == largest, indices, jnp.iinfo(jnp.int32).max).argmin()
    return largest, place

  def goes_on(state: tuple[Chosen, jax.Array]) -> jax.Array:
    chosen, squared = state
    largest, place = best(squared)
    is_farthest = (largest > bar) | ((largest == bar) & (indices[place] < bar_index))
    # At zero all that is left are copies of rows chosen.
    return (chosen.number < jnp.minimum(wanted, size)) & is_farthest & (largest > 0)

  def choose(state: tuple[Chosen, jax.Array]) -> tuple[Chosen, jax.Array]:
    chosen, squared = state
    _, place = best(squared)
    row = columns[:, place]
    squared = jnp.minimum(squared, jnp.sum((columns - row[:, None]) ** 2, axis=0))
    at = chosen.number
    return Chosen(
      at + 1,
      chosen.indices.at[at].set(indices[place]),
      chosen.rows.at[at].set(row),
    ), squared

  none = Chosen(jnp.int32(0), jnp.zeros(size, jnp.int32), jnp.zeros((size, len(columns))))
  return lax.while_loop(goes_on, choose, (none, farthest.squared[:-1]))[0]


class Source(NamedTuple):
  """The rows in parts of equal size, the last one padded.

  Attributes:
    mesh: the devices that a part is sharded over.
    size: rows of a part.
    firsts: the number of each part's first row.
    load: puts the part that begins with a row onto the devices.
  """

  mesh: Mesh
  size: int
  firsts: range
  load: Callable[[int], jax.Array]


def _on_device_source(rows: jax.Array) -> Source:
  """Returns one part, which stays where it is."""
  places = rows.sharding.devices_indices_map(rows.shape)
  devices = sorted(places, key=lambda device: places[device][0].start or 0)
  mesh = Mesh(np.array(devices), (DEVICES,))
  # The same places under our name of the axis: nothing moves.
  rows = jax.device_put(rows, NamedSharding(mesh, SHARDED))
  size = rows.size // rows.shape[-1]
  return Source(mesh, size, range(0, size, size), lambda _: rows)


def _host_source(rows: np.ndarray, at_once: int | None) -> Source:
  """Returns parts of `at_once` rows, dealt to the local devices; one part alone stays there."""
  mesh = local_mesh()
  size = -(-min(at_once or len(rows), len(rows)) // mesh.size) * mesh.size

  def load(first: int) -> jax.Array:
    part = np.asarray(rows[first : first + size], np.float32)
    placed: jax.Array = jax.device_put(pad_images(part, size), NamedSharding(mesh, SHARDED))
    return placed

  firsts = range(0, len(rows), size)
  if len(firsts) == 1:
    only = load(0)
    return Source(mesh, size, firsts, lambda _: only)
  return Source(mesh, size, firsts, load)


def select(
  rows: np.ndarray | jax.Array,
  count: int,
  *,
  seed: int = 0,
  valid: np.ndarray | None = None,
  at_once: int | None = None,
  progress: Progress = iter,
) -> np.ndarray:
  """Chooses the rows to keep by k-center greedy.

  The same rows are chosen on any number of devices, and for any `at_once`. Of rows equally far the
  first is chosen. A copy of a row that is kept is not: where rows run out, fewer than `count` are
  returned. (Distances below 1e-18 are 0.)

  Args:
    rows: f32[N, D] on the host, a memory map perhaps; or on devices f32[..., D], sharded over them
      along the first axis, numbered in C order.
    count: rows to keep.
    seed: draws the first row.
    valid: bool[N], False where a row is padding; all are valid without it.
    at_once: rows on the host that are on the devices at a time, twice: the next are sent while
      these are worked on. All stay on the devices without it. With it, or without, the devices hold
      4 bytes for each row and one part's products of blocks.
    progress: wraps the iterable of choices. Choices come in bursts of up to `CHOICES`.

  Returns:
    The rows' numbers i32[count], in the order chosen.

  Raises:
    UserError: count is not between 1 and the number of rows; a row is NaN, infinite or beyond 1e18.
  """
  total = int(np.prod(rows.shape[:-1]))
  valid = np.ones(total, bool) if valid is None else valid
  numbers = np.flatnonzero(valid)
  if not 1 <= count <= len(numbers):
    raise UserError(
      f'cannot keep {count} of {len(numbers)} rows of the memory bank: keep at least 1, at most all'
    )
  start = int(numbers[np.random.default_rng(seed).integers(len(numbers))])
  source = _on_device_source(rows) if isinstance(rows, jax.Array) else _host_source(rows, at_once)
  sharded = NamedSharding(source.mesh, SHARDED)
  state = [
    jax.device_put(pad_images(valid[first : first + source.size], source.size), sharded)
    for first in source.firsts
  ]
  first_row = np.asarray(rows[np.unravel_index(start, rows.shape[:-1])], np.float32)
  _check_finite(start, float(np.abs(first_row).max()), LARGEST**0.5)
  farthest = _over_all(_begin, source, state, first_row)
  _check_finite(int(farthest.indices[0]), float(farthest.squared[0]), LARGEST)

  indices = [start]
  for choice in progress(range(count)):
    if choice < len(indices):
      continue
    chosen = jax.device_get(choose(farthest, count - choice, CHOICES))
    if chosen.number == 0:
      break
    indices += chosen.indices[: chosen.number].tolist()
    farthest = _over_all(pass_over, source, state, chosen)
  return np.array(indices, np.int32)


def _over_all(
  run: jax.stages.Wrapped, source: Source, state: list[jax.Array], choice: Any
) -> Farthest:
  """Runs a program on every part; `state`, each part's squared distances, is brought up to date."""
  farthest = _nothing_yet(choice.shape[-1] if run is _begin else choice.rows.shape[-1])
  part = source.load(0)
  for index, first in enumerate(source.firsts):
    state[index], farthest = run(
      part, state[index], choice, farthest, np.int32(first), mesh=source.mesh
    )
    # The next part is sent while this one is worked on, but never one more.
    following = source.firsts[index + 1 : index + 2]
    part = source.load(following[0]) if following else part
    jax.block_until_ready(farthest)
  return farthest


def _check_finite(row: int, size: float, limit: float) -> None:
  if not size <= limit:
    raise UserError(
      f'row {row} of the memory bank is NaN, infinite or beyond 1e18: check the encoder'
    )


def distance_error(full: np.ndarray, reduced: np.ndarray) -> dict[str, float]:
  """Returns how much farther the nearest kept row is than the nearest of all.

  Args:
    full: f32[Q], distances from queries to the nearest row of the full bank.
    reduced: f32[Q], to the nearest row kept; nowhere smaller.

  Returns:
    'mean', 'median' and 'max' of the difference, and 'relative': its sum by that of `full`.

  Raises:
    UserError: there are no queries, or not as many in both.
  """
  if full.shape != reduced.shape or not full.size:
    raise UserError(
      f'distances of {full.size} and {reduced.size} queries cannot be compared: give those of the '
      f'same queries to the full and to the reduced memory bank'
    )
  full = np.asarray(full, np.float64)
  error = np.asarray(reduced, np.float64) - full
  total = float(full.sum())
  return {
    'mean': float(error.mean()),
    'median': float(np.median(error)),
    'max': float(error.max()),
    'relative': float(error.sum()) / total if total else float('nan') if error.any() else 0.0,
  }
