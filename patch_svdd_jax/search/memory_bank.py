"""The memory bank: the embeddings of all normal patches, laid out for the search.

The rows lie where the embedding pass left them, sharded over the devices, and never visit the host.
A bank that is small is copied to every device instead: then each searches all of it for its share
of the queries, and none has to prove what another one has found. One that is larger than the
devices' memory stays on the host, and its chunks visit the devices in turn.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import block_sizes, screening
from patch_svdd_jax.search.products import Product, products_of, unit_of
from patch_svdd_jax.search.screening import Screen
from patch_svdd_jax.system import devices
from patch_svdd_jax.system.batching import pad_images
from patch_svdd_jax.system.sharding import DEVICES, REPLICATED, SHARDED, all_devices

# A bank of no more bytes is copied to every device.
SMALL = 32 * 2**20

# Values of the bank that take part in the design of its screen, in runs of so many rows.
SAMPLE = 2**20
RUN = 256

# Rows whose screening vectors are made at a time.
CONVERTED = 4096

# A bank with room for more rows is laid out for one of so many sizes between powers of two, and has
# room for so many times what was added last: each size is programs to compile.
SIZES, AHEAD = 4, 4

NO_NUMBERS = 'the memory bank has a NaN or an infinity: check the images and the encoder'


class Layout(NamedTuple):
  """How a bank lies on the devices.

  Attributes:
    size: the number of its rows, padding not counted.
    share: rows of each part; those of the last parts may be fewer.
    mesh: the devices.
    group: rows of which only the largest screening product is kept, and which are scanned together;
      parts are padded to whole groups.
  """

  size: int
  share: int
  mesh: Mesh
  group: int

  @property
  def sharded(self) -> bool:
    """Whether each device has another part; otherwise one part is all, and each has it."""
    return self.share < self.size

  @property
  def parts(self) -> int:
    """How many there are."""
    return self.mesh.size if self.sharded else 1

  @property
  def spec(self) -> PartitionSpec:
    """How the parts lie on the mesh."""
    return SHARDED if self.sharded else REPLICATED

  @property
  def platform(self) -> str:
    """What the devices are: 'cpu', 'gpu', 'tpu'."""
    return _platform(self.mesh)

  def first_row(self) -> jax.Array:
    """Returns the number of the first row of a device's part, inside of shard_map."""
    return lax.axis_index(DEVICES) * self.share if self.sharded else jnp.int32(0)

  def row_count(self) -> jax.Array:
    """Returns how many rows a device's part has, inside of shard_map."""
    return jnp.clip(self.size - self.first_row(), 0, self.share)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['rows', 'vectors', 'screen', 'filled'],
  meta_fields=['layout'],
)
@dataclasses.dataclass(frozen=True)
class MemoryBank:
  """A memory bank, ready to be searched; a pytree.

  Attributes:
    rows: f32[parts * groups, group * D], padded. The rows of a group lie behind each other: alone,
      each would take a multiple of a TPU's 128 lanes.
    vectors: f32 or bf16[parts * groups, group, W], the rows' screening vectors.
    screen: what the screening vectors were made with.
    layout: how the parts lie on the devices.
    filled: i32[], of a bank with room for more rows, how many there are, the first ones; None where
      there are as many as the layout has.
  """

  rows: jax.Array
  vectors: jax.Array
  screen: Screen
  layout: Layout
  filled: jax.Array | None = None

  @property
  def size(self) -> int:
    """The number of rows, padding not counted."""
    return self.layout.size if self.filled is None else int(self.filled)

  @property
  def size_on_device(self) -> jax.Array | int:
    """Returns the number of rows, of a bank that is not sharded, also inside of jit."""
    return self.layout.size if self.filled is None else self.filled

  @property
  def dim(self) -> int:
    """D."""
    return self.rows.shape[-1] // self.layout.group

  @property
  def mesh(self) -> Mesh:
    """The devices."""
    return self.layout.mesh

  @property
  def groups_on_device(self) -> int:
    """How many groups each device searches."""
    return len(self.rows) // self.layout.parts


@dataclasses.dataclass(frozen=True)
class HostBank:
  """A memory bank on the host, whose chunks are searched one after the other.

  Attributes:
    rows: f32[N, D], in memory or mapped from a file; the same in every process.
    screen: for all chunks.
    chunk: rows that are on the devices at a time; the next ones arrive meanwhile.
    mesh: the devices.
  """

  rows: np.ndarray
  screen: Screen
  chunk: int
  mesh: Mesh

  @property
  def size(self) -> int:
    """The number of rows."""
    return len(self.rows)

  @property
  def dim(self) -> int:
    """D."""
    return int(self.rows.shape[1])

  @property
  def groups_on_device(self) -> int:
    """How many groups each device searches at a time."""
    share = -(-self.chunk // self.mesh.size)
    return -(-self.chunk // lay_out(self.chunk, share, self.dim, self.mesh).group)

  def load(self, first: int) -> MemoryBank:
    """Sends the chunk that begins with row `first` to the devices."""
    rows = self.rows[first : first + self.chunk]
    return _arrange(_deal(rows, self.mesh), len(rows), self.mesh, screen=self.screen)


def lay_out(size: int, share: int, dim: int, mesh: Mesh) -> Layout:
  """Chooses how a bank of f32[size, dim] lies, in parts of `share` rows: copied if small."""
  if size <= share or size * dim * 4 <= SMALL:
    share = size
  return Layout(size, share, mesh, block_sizes.rows_of_group(_platform(mesh), share))


def _platform(mesh: Mesh) -> str:
  return str(mesh.devices.flat[0].platform)


def from_device_rows(
  rows: jax.Array, size: int, dtype: jax.typing.DTypeLike | None = None
) -> MemoryBank:
  """Returns a bank of rows that lie on all devices already; see `from_rows`.

  Args:
    rows: f32[devices, share, D].
    size: how many rows there are; those behind the first so many are padding.
    dtype: of the screening vectors.
  """
  return _arrange(rows, size, all_devices(), dtype)


def from_rows(
  rows: np.ndarray,
  mesh: Mesh | None = None,
  dtype: jax.typing.DTypeLike | None = None,
  screen: Screen | None = None,
) -> MemoryBank:
  """Returns a bank of rows, dealt to the devices in runs.

  Args:
    rows: f32[N, D], N >= 1; the same in every process.
    mesh: the devices; all of them if None.
    dtype: of the screening vectors, float32 or bfloat16; what is expected to be fastest if None.
      The search is exact with either.
    screen: that of another bank of such rows; one for these rows if None. Exact with either, too.

  Raises:
    UserError: there are no rows, or one has a NaN or an infinity.
  """
  devices.check()
  _check_shape(rows)
  mesh = mesh or all_devices()
  return _arrange(_deal(rows, mesh), len(rows), mesh, dtype, screen)


def on_host(
  rows: np.ndarray,
  chunk: int,
  mesh: Mesh | None = None,
  dtype: jax.typing.DTypeLike | None = None,
  screen: Screen | None = None,
) -> HostBank:
  """Returns a bank that stays on the host, `chunk` rows of which visit the devices at a time.

  Raises:
    UserError: there are no rows; a NaN or an infinity is found when its chunk is searched.
  """
  _check_shape(rows)
  mesh = mesh or all_devices()
  if screen is None:
    runs = max(1, min(SAMPLE // (rows.shape[1] * RUN), len(rows) // RUN))
    starts = np.arange(runs)[:, None] * (len(rows) // runs)
    sample = rows[(starts + np.arange(RUN)) % len(rows)]
    layout = lay_out(chunk, -(-chunk // mesh.size), rows.shape[1], mesh)
    screen = _design(sample, len(rows), layout, dtype)
  return HostBank(rows, screen, chunk, mesh)


def _check_shape(rows: np.ndarray) -> None:
  """Refuses what is no bank."""
  if rows.ndim != 2 or not rows.size:
    raise UserError(f'a memory bank needs rows f32[N, D], N >= 1; these are {list(rows.shape)}')


def _deal(rows: np.ndarray, mesh: Mesh) -> jax.Array:
  """Returns rows f32[N, D] in runs on the devices, f32[devices, share, D], zeros behind."""
  share = -(-len(rows) // mesh.size)

  def part(index: tuple[slice, ...] | None) -> np.ndarray:
    first = ((index[0].start if index else 0) or 0) * share
    return pad_images(np.asarray(rows[first : first + share], np.float32), share)[None]

  shape = (mesh.size, share, rows.shape[1])
  return jax.make_array_from_callback(shape, NamedSharding(mesh, SHARDED), part)


def _design(
  sample: np.ndarray, size: int, layout: Layout, dtype: jax.typing.DTypeLike | None
) -> Screen:
  """Designs the screen of a bank from the sample f32[runs, RUN, D], on all devices."""
  if not np.isfinite(sample).all():
    raise UserError(NO_NUMBERS)
  products = [
    product for product in products_of(layout.platform) if dtype in (None, product.dtype)
  ] or [Product(jnp.dtype(dtype))]
  screen: Screen = jax.device_put(
    screening.design(sample, size, products, layout.group), NamedSharding(layout.mesh, REPLICATED)
  )
  return screen


def _arrange(
  rows: jax.Array,
  size: int,
  mesh: Mesh,
  dtype: jax.typing.DTypeLike | None = None,
  screen: Screen | None = None,
) -> MemoryBank:
  """Returns a bank of rows f32[devices, share, D], the first `size` of them all."""
  layout = lay_out(size, rows.shape[1], rows.shape[2], mesh)
  if not layout.sharded:
    rows = _replicated(rows, size, NamedSharding(mesh, REPLICATED))
  grouped, finite = _group(rows, layout)
  if not finite:
    raise UserError(NO_NUMBERS)
  if screen is None:
    screen = _design(_sample(grouped, layout), size, layout, dtype)
  return MemoryBank(grouped, _vectors(grouped, screen, layout), screen, layout)


def append(bank: MemoryBank, rows: np.ndarray) -> MemoryBank:
  """Returns a bank with more rows behind its own; no program is compiled while it has room.

  Args:
    bank: not sharded, and left as it is.
    rows: f32[N, D], which are screened as those of the bank.

  Raises:
    UserError: one has a NaN or an infinity.
  """
  if not np.isfinite(rows).all():
    raise UserError(NO_NUMBERS)
  size = bank.size + len(rows)
  if bank.filled is None or size > bank.layout.size:
    bank = with_room(bank, size + AHEAD * len(rows))
  assert bank.filled is not None
  written, vectors = _write(bank, rows)
  return dataclasses.replace(bank, rows=written, vectors=vectors, filled=bank.filled + len(rows))


def with_room(bank: MemoryBank, size: int) -> MemoryBank:
  """Returns a bank of the same rows, not sharded, with room for `size` rows or some more."""
  rows, room = to_rows(bank), room_for(size)
  padded = jax.device_put(pad_images(rows, room)[None], NamedSharding(bank.mesh, REPLICATED))
  layout = lay_out(room, room, bank.dim, bank.mesh)
  grouped, _ = _group(padded, layout)
  filled = jax.device_put(jnp.int32(len(rows)), NamedSharding(bank.mesh, REPLICATED))
  vectors = _vectors(grouped, bank.screen, layout, filled)
  return MemoryBank(grouped, vectors, bank.screen, layout, filled)


def room_for(size: int) -> int:
  """Returns the least size that banks with room have, of at least `size` rows."""
  step = max(1, 2 ** (size - 1).bit_length() // (2 * SIZES))
  room: int = -(-size // step) * step
  return room


def first(bank: MemoryBank, size: int) -> MemoryBank:
  """Returns the bank of the first rows of a bank with room, which the same programs search."""
  assert bank.filled is not None
  return dataclasses.replace(bank, filled=jax.device_put(jnp.int32(size), bank.filled.sharding))


@jax.jit
def _write(bank: MemoryBank, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the rows and vectors of a bank with rows f32[N, D] behind its own."""
  dtype, width = screening.dtype_of(bank.screen), width_of_vectors(bank.screen, bank.layout)
  valid = jnp.ones(len(rows), bool)
  vectors = screening.row_vectors(bank.screen, rows, valid, dtype, width)
  place = NamedSharding(bank.mesh, bank.layout.spec)

  def write(all_of_bank: jax.Array, new: jax.Array) -> jax.Array:
    flat = all_of_bank.reshape(-1, new.shape[1])
    flat = lax.dynamic_update_slice_in_dim(flat, new, bank.size_on_device, 0)
    written: jax.Array = lax.with_sharding_constraint(flat.reshape(all_of_bank.shape), place)
    return written

  return write(bank.rows, rows), write(bank.vectors, vectors)


def bank_summary(bank: MemoryBank | HostBank) -> str:
  """Describes the bank: its size, where it lies and how it is screened."""
  devices = f'{bank.mesh.size} device' + 's' * (bank.mesh.size > 1)
  if isinstance(bank, HostBank):
    where = f'on the host, {bank.chunk:,} at a time on {devices}'
  else:
    where = ('sharded over ' if bank.layout.sharded else 'on ') + devices
  accurate, rough = screening.components_of(bank.screen)
  by = f'{accurate + rough} components in {jnp.dtype(screening.dtype_of(bank.screen)).name}'
  return f'memory bank of {bank.size:,} patches x {bank.dim} numbers {where}, screened by {by}'


def to_rows(bank: MemoryBank | HostBank) -> np.ndarray:
  """Returns the rows f32[N, D], on the host."""
  if isinstance(bank, HostBank):
    return bank.rows
  rows = np.asarray(multihost_utils.process_allgather(bank.rows, tiled=True))
  by_part = rows.reshape(bank.layout.parts, -1, bank.dim)[:, : bank.layout.share]
  return by_part.reshape(-1, bank.dim)[: bank.size]


@functools.partial(jax.jit, static_argnames=('size', 'sharding'))
def _replicated(rows: jax.Array, size: int, sharding: NamedSharding) -> jax.Array:
  """Returns the first `size` rows as one part f32[1, size, D] that all devices have."""
  flat = rows.reshape(1, -1, rows.shape[-1])[:, :size]
  placed: jax.Array = lax.with_sharding_constraint(flat, sharding)
  return placed


@functools.partial(jax.jit, static_argnames='layout')
def _group(rows: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
  """Returns rows f32[parts, share, D] in groups, with zeros behind; and whether all are finite."""
  parts, share, dim = rows.shape
  number = jnp.arange(parts)[:, None] * share + jnp.arange(share)[None]
  rows = jnp.where((number < layout.size)[..., None], rows, 0.0)
  finite = jnp.isfinite(rows).all()
  rows = jnp.pad(rows, ((0, 0), (0, -share % layout.group), (0, 0)))
  rows = rows.reshape(-1, layout.group * dim)
  return lax.with_sharding_constraint(rows, NamedSharding(layout.mesh, layout.spec)), finite


@functools.partial(jax.jit, static_argnames=('runs', 'layout'))
def _runs(rows: jax.Array, runs: int, layout: Layout) -> jax.Array:
  """Returns as many runs of RUN rows from all over each part, f32[parts * runs * RUN, D]."""

  def take(rows: jax.Array) -> jax.Array:
    count = layout.row_count()
    starts = jnp.arange(runs) * (count // runs)
    index = (starts[:, None] + jnp.arange(RUN)[None]) % jnp.maximum(count, 1)
    return rows.reshape(-1, rows.shape[-1] // layout.group)[index.reshape(-1)]

  return jax.shard_map(
    take, mesh=layout.mesh, in_specs=(layout.spec,), out_specs=layout.spec, check_vma=False
  )(rows)


def _sample(rows: jax.Array, layout: Layout) -> np.ndarray:
  """Returns runs of rows from all over the bank, f32[runs, RUN, D]."""
  parts, dim = layout.parts, rows.shape[-1] // layout.group
  wanted = min(max(1, SAMPLE // (dim * RUN * parts)), -(-layout.share // RUN))
  sample = multihost_utils.process_allgather(_runs(rows, wanted, layout), tiled=True)
  # The last parts may have no rows.
  filled = -(-layout.size // layout.share)
  return np.asarray(sample).reshape(parts, wanted, RUN, dim)[:filled].reshape(-1, RUN, dim)


@functools.partial(jax.jit, static_argnames='layout')
def _vectors(
  rows: jax.Array, screen: Screen, layout: Layout, filled: jax.Array | None = None
) -> jax.Array:
  """Returns the screening vectors [parts * groups, group, W], made where the rows are."""
  dtype, width = screening.dtype_of(screen), width_of_vectors(screen, layout)
  together = max(1, CONVERTED // layout.group)

  def make(rows: jax.Array, screen: Screen, filled: jax.Array | None) -> jax.Array:
    count = layout.row_count() if filled is None else filled

    def one(group_and_number: tuple[jax.Array, jax.Array]) -> jax.Array:
      group, number = group_and_number
      valid = number * layout.group + jnp.arange(layout.group) < count
      return screening.row_vectors(screen, group.reshape(layout.group, -1), valid, dtype, width)

    # Some at a time: in float64 all rows at once would take twice the bank's memory.
    vectors: jax.Array = lax.map(one, (rows, jnp.arange(len(rows))), batch_size=together)
    return vectors

  return jax.shard_map(
    make,
    mesh=layout.mesh,
    in_specs=(layout.spec, REPLICATED, REPLICATED),
    out_specs=layout.spec,
    check_vma=False,
  )(rows, screen, filled)


def width_of_vectors(screen: Screen, layout: Layout) -> int:
  """Returns the length of the screening vectors of a screen, where the bank lies."""
  dtype, (accurate, rough) = screening.dtype_of(screen), screening.components_of(screen)
  return screening.width_of(accurate, dtype, rough, unit_of(layout.platform))
