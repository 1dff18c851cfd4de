"""What the search takes on TPUs that are not here: its program, compiled for them ahead of time.

The program is that of `nearest.search`. Its time is not known before it runs: how many groups each
query looks at depends on the data, and for a program with a Pallas kernel the compiler names no
time. So two estimates are given of the screening product alone: what the chip's published peak
allows, and what the compiler expects of the same product without the kernel.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import block_sizes, memory_bank, nearest, screening
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.memory_bank import MemoryBank
from patch_svdd_jax.search.screening import GROUP, Screen
from patch_svdd_jax.system.compiled_memory import Memory, memory_of
from patch_svdd_jax.system.sharding import REPLICATED
from patch_svdd_jax.tpu_planning import aot

# A described device has no free memory to ask for: these are what block_sizes chooses on a chip
# with room.
SIZES = BlockSizes(block_sizes.MOST_QUERIES, block_sizes.ROWS_ON_ACCELERATOR)

# Turns of the scan whose body is estimated: enough that it stays a loop.
TURNS = 64

KERNEL = 'custom_call_target="tpu_custom_call"'


class Work(NamedTuple):
  """What is searched for, and in what.

  Attributes:
    bank_rows: N.
    queries: Q, of one image.
    dim: D.
    k: nearest rows of each query.
    components: principal components of the screening vectors.
  """

  bank_rows: int
  queries: int = 3249
  dim: int = 64
  k: int = 1
  components: int = 41

  @property
  def width(self) -> int:
    """W, of the screening vectors."""
    return screening.width_of(self.components, jnp.bfloat16)

  @property
  def flops(self) -> float:
    """Of the screening products of one image, on all chips together."""
    return 2.0 * self.queries * self.bank_rows * self.width


class Plan(NamedTuple):
  """The search of one image on a TPU.

  Attributes:
    topology: as 'v5e:2x2'.
    chips: how many it has.
    sharded: whether each has another part of the bank, or all the whole bank.
    rows_on_chip: rows of the bank that each holds.
    memory: None if the program does not fit.
    chip_memory: what there is, bytes.
    flops: of the screening products, on all chips together.
    peak_seconds: what they take at the published peak of all chips.
    compiler_seconds: what the compiler expects of them without the kernel; None if it does not say.
    collectives: how many of each kind are in the program.
    kernels: how many Pallas kernels are in the program.
  """

  topology: str
  chips: int
  sharded: bool
  rows_on_chip: int
  memory: Memory | None
  chip_memory: int
  flops: float
  peak_seconds: float
  compiler_seconds: float | None
  collectives: dict[str, int]
  kernels: int


def check(topology: str, work: Work) -> None:
  """Refuses what cannot be compiled, before anything is.

  Raises:
    UserError: names what.
  """
  aot.check_topology(topology)
  for field in Work._fields:
    if getattr(work, field) < 1:
      raise UserError(f'{field}={getattr(work, field)}: give at least 1')
  if work.k > work.bank_rows:
    raise UserError(f'k={work.k}: the memory bank has {work.bank_rows} rows')
  if work.components > work.dim:
    raise UserError(f'components={work.components}: the rows have {work.dim} dimensions')


def compile_for(topology: str, work: Work) -> Plan:
  """Compiles the search for a TPU.

  Raises:
    UserError: libtpu is not installed, or there is no such topology.
  """
  check(topology, work)
  chip, mesh = aot.chip_of(topology), aot.mesh_of(topology)
  queries, bank = arguments(work, mesh)
  layout = bank.layout
  lowered = nearest.search_on_devices.lower(queries, bank, work.k, SIZES)
  compiled = aot.compile_fitting(lowered)
  text = (compiled.as_text() if compiled else None) or ''
  share = work.queries if layout.sharded else -(-work.queries // mesh.size)
  return Plan(
    topology=topology,
    chips=mesh.size,
    sharded=layout.sharded,
    rows_on_chip=layout.share,
    memory=memory_of(compiled) if compiled else None,
    chip_memory=chip.memory,
    flops=work.flops,
    peak_seconds=work.flops / (chip.peak * mesh.size),
    compiler_seconds=_scan_seconds(mesh.devices.flat[0], share, layout.share, work.width),
    collectives={kind: found.number for kind, found in aot.collectives_of(text).items()},
    kernels=text.count(KERNEL),
  )


def arguments(work: Work, mesh: Mesh) -> tuple[jax.Array, MemoryBank]:
  """Queries and a bank that have shapes and no values, laid out as memory_bank does."""
  share = -(-work.bank_rows // mesh.size)
  layout = memory_bank.lay_out(work.bank_rows, share, work.dim, mesh)
  groups = (mesh.size if layout.sharded else 1, -(-layout.share // GROUP), GROUP)

  def array(
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike = jnp.float32,
    spec: jax.sharding.PartitionSpec = REPLICATED,
  ) -> Any:
    # A bank holds arrays; where they are only described, their shapes stand for them.
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

  screen = Screen(array((work.dim,)), array((work.dim, work.components)), array(()))
  rows = array((*groups, work.dim), spec=layout.spec)
  vectors = array((*groups, work.width), jnp.bfloat16, layout.spec)
  return array((work.queries, work.dim)), MemoryBank(rows, vectors, screen, layout)


def _scan_seconds(device: jax.Device, queries: int, rows: int, width: int) -> float | None:
  """The compiler's estimate of a scan without the kernel.

  It counts a loop's body once; the result is that of all turns.
  """

  def scan(vectors: jax.Array, queries: jax.Array) -> jax.Array:
    def visit(block: jax.Array) -> jax.Array:
      products = lax.dot_general(
        block, queries, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
      )
      # In this order the compiler keeps the products out of HBM; negated first, they go there.
      return -products.reshape(-1, GROUP, len(queries)).max(axis=1)

    minima: jax.Array = lax.map(visit, vectors)
    return minima

  here = SingleDeviceSharding(device)
  arguments = (
    jax.ShapeDtypeStruct((*shape, width), jnp.bfloat16, sharding=here)
    for shape in ((TURNS, SIZES.rows), (queries,))
  )
  seconds = aot.positive(jax.jit(scan).lower(*arguments).compile().cost_analysis())
  return seconds and seconds * rows / SIZES.rows
