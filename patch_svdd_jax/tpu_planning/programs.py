"""The train step, the embedding pass and the exact search, compiled for TPUs that are not here.

All raise UserError where libtpu is not installed or there is no such topology.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, encoder, features, flops, tiling
from patch_svdd_jax.search import block_sizes, memory_bank, nearest, screening
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.memory_bank import MemoryBank
from patch_svdd_jax.search.products import MATRIX_UNIT
from patch_svdd_jax.search.screening import GROUP, Screen
from patch_svdd_jax.system.sharding import REPLICATED, SHARDED
from patch_svdd_jax.tpu_planning import aot
from patch_svdd_jax.tpu_planning.aot import Program
from patch_svdd_jax.training import batches, deep_svdd_centre, train_state, train_step, windows

# A described device has no free memory to ask for: these are what block_sizes chooses on a chip
# with room.
SIZES = BlockSizes(block_sizes.MOST_QUERIES, block_sizes.ROWS_ON_ACCELERATOR)

# Turns of the scan whose body is estimated: enough that it stays a loop.
TURNS = 64


def train(
  topology: str, config: ml_collections.ConfigDict, pairs: int, images: int, slices: int = 1
) -> Program:
  """Compiles the train step. A loop's body is counted once: the time is that of one step.

  Args:
    topology: as 'v5e:2x2', of each slice.
    config: the whole config; its batch is resized.
    pairs: `config.train.batch_size` on each chip.
    images: how many there are to train on.
    slices: joined by the data-centre network.

  Raises:
    UserError: the batch cannot be divided.
  """
  mesh = aot.mesh_of(topology, slices)
  chips = aot.chips_of(topology, mesh)
  config = batches.resize(config, pairs * chips)
  spec, _ = windows.PLACEMENTS[config.train.images]
  mean, padded = _inputs(config, windows.padded_count(images, spec, mesh), mesh, spec)
  state, hyperparams = (
    aot.described(jax.eval_shape(make), mesh)
    for make in (
      lambda: train_state.init_state(config),
      lambda: train_state.hyperparams(config, deep_svdd_centre.zeros(config)),
    )
  )
  return aot.compile_program(
    topology,
    chips,
    pairs,
    train_step.make_train_step(config, images, mesh).lower(state, padded, mean, hyperparams),
    flops=flops.step_flops(config),
    compute=config.train.compute,
    parts=config.train.accumulate,
    slices=slices,
  )


def embed(topology: str, config: ml_collections.ConfigDict, images: int) -> Program:
  """Compiles the embedding of a batch of so many images on each chip.

  `jax.pmap` cannot be lowered for chips that are only described: its body is mapped over them by
  `jax.shard_map` instead.

  Raises:
    UserError: the devices of a chip cannot have equally many of its images.
  """
  mesh = aot.mesh_of(topology)
  chips = aot.chips_of(topology, mesh)
  count = images * chips
  if count % mesh.size:
    raise UserError(
      f'{images} images on each chip of {topology}: give a multiple of {mesh.size // chips}, its '
      'devices'
    )
  arch, strides = architecture.from_config(config.encoder), architecture.strides_of(config)
  size, tile = tuple(config.data.image_size), config.score.tile
  mapped = jax.shard_map(
    embedding.make_encode(arch, strides, tile, features=features.from_config(config.score)),
    mesh=mesh,
    in_specs=(REPLICATED, REPLICATED, SHARDED),
    out_specs=SHARDED,
    check_vma=False,
  )
  params = jax.eval_shape(lambda: {**encoder.init_encoder(config), **features.empty(config)})
  return aot.compile_program(
    topology,
    chips,
    images,
    jax.jit(mapped).lower(aot.described(params, mesh), *_inputs(config, count, mesh, SHARDED)),
    flops=count * flops.image_flops(config),
    compute='float32',
    parts=1
    if tiling.is_whole(size, tile)
    else count // mesh.size * tiling.count(size, tile, strides),
  )


def _inputs(
  config: ml_collections.ConfigDict, count: int, mesh: Mesh, spec: PartitionSpec
) -> Iterator[jax.ShapeDtypeStruct]:
  """Describes the mean image, on all chips, and so many images, laid out by `spec`."""
  size = tuple(config.data.image_size)
  mean = size if config.train.mean == 'image' else (1, 1)
  yield aot.described(jax.ShapeDtypeStruct((*mean, 3), jnp.float32), mesh)
  yield aot.described(jax.ShapeDtypeStruct((count, *size, 3), jnp.uint8), mesh, spec)


class Work(NamedTuple):
  """A search.

  Attributes:
    bank_rows: N.
    queries: Q, of one image.
    dim: D.
    k: nearest rows of each query.
    components: principal components of the screening vectors; as many as there is room for are
      split, the others rough.
  """

  bank_rows: int
  queries: int = 3249
  dim: int = 64
  k: int = 1
  components: int = 64

  @property
  def width(self) -> int:
    """W, of the screening vectors."""
    accurate = self.accurate
    return screening.width_of(accurate, jnp.bfloat16, self.components - accurate)

  @property
  def accurate(self) -> int:
    """How many components are split."""
    return screening.splittable(self.components, MATRIX_UNIT)

  @property
  def flops(self) -> float:
    """Of the screening products of one image, on all chips together."""
    return 2.0 * self.queries * self.bank_rows * self.width

  def check(self) -> None:
    """Raises UserError for what cannot be searched."""
    for field, value in self._asdict().items():
      if value < 1:
        raise UserError(f'{field}={value}: give at least 1')
    if self.k > self.bank_rows:
      raise UserError(f'k={self.k}: the memory bank has {self.bank_rows} rows')
    if self.components > self.dim:
      raise UserError(f'components={self.components}: the rows have {self.dim} dimensions')


def search(topology: str, work: Work) -> Program:
  """Compiles the search of one image.

  Its time is not known before it runs: how many groups each query looks at depends on the data, and
  for a program with a Pallas kernel the compiler names no time. So the times are of the screening
  product alone: what the chips' published peak allows, and what the compiler expects of the same
  product without the kernel.
  """
  work.check()
  mesh = aot.mesh_of(topology)
  queries, bank = arguments(work, mesh)
  layout, chips = bank.layout, aot.chips_of(topology, mesh)
  share = work.queries if layout.sharded else -(-work.queries // mesh.size)
  return aot.compile_program(
    topology,
    chips,
    layout.share * (mesh.size // chips if layout.sharded else 1),
    nearest.search_on_devices.lower(queries, bank, work.k, SIZES),
    flops=work.flops,
    compute='bfloat16',
    timed=_screening_scan(mesh.devices.flat[0], share, work.width),
    parts=layout.share / SIZES.rows,
    options={},
  )


def arguments(work: Work, mesh: Mesh) -> tuple[jax.Array, MemoryBank]:
  """Describes queries and a bank, laid out as memory_bank does."""
  share = -(-work.bank_rows // mesh.size)
  layout = memory_bank.lay_out(work.bank_rows, share, work.dim, mesh)
  groups = layout.parts * -(-layout.share // layout.group)

  def array(
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike = jnp.float32,
    spec: PartitionSpec = REPLICATED,
  ) -> Any:
    # A bank holds arrays; where they are only described, their shapes stand for them.
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

  accurate = work.accurate
  axes = (array((work.dim, each)) for each in (accurate, work.components - accurate))
  screen = Screen(array((work.dim,)), next(axes), array(()), next(axes))
  rows = array((groups, layout.group * work.dim), spec=layout.spec)
  width = memory_bank.width_of_vectors(screen, layout)
  vectors = array((groups, layout.group, width), jnp.bfloat16, layout.spec)
  return array((work.queries, work.dim)), MemoryBank(rows, vectors, screen, layout)


def _screening_scan(device: jax.Device, queries: int, width: int) -> jax.stages.Lowered:
  """Computes the screening product without the kernel, scanning blocks of `SIZES.rows` rows."""

  def scan(vectors: jax.Array, queries: jax.Array) -> jax.Array:
    def visit(block: jax.Array) -> jax.Array:
      products = lax.dot_general(
        block, queries, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
      )
      # In this order the compiler keeps the products out of HBM; negated first, they go there.
      return -products.reshape(-1, GROUP, len(queries)).max(axis=1)

    bounds: jax.Array = lax.map(visit, vectors)
    return bounds

  here = SingleDeviceSharding(device)
  arguments = (
    jax.ShapeDtypeStruct((*shape, width), jnp.bfloat16, sharding=here)
    for shape in ((TURNS, SIZES.rows), (queries,))
  )
  return jax.jit(scan).lower(*arguments)
