"""Compiles programs for TPUs ahead of time, and estimates their memory and their time.

No TPU is needed, only its compiler, the package `libtpu`. The programs are those that run; their
arguments have shapes and no values. Figures of memory and collectives are those of the compiled
program, times are estimates.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.compiled_memory import Memory, is_out_of_memory, memory_of
from patch_svdd_jax.system.sharding import REPLICATED, by_slice


class Chip(NamedTuple):
  """What its maker publishes of a chip.

  Attributes:
    peak: of its bfloat16 matrix products, FLOP/s.
    memory: HBM, bytes.
    options: with which it is as many devices as when JAX runs there.
    devices: how many these are; each has its part of the memory and of the peak.
  """

  peak: float
  memory: int
  options: Mapping[str, str] = {}
  devices: int = 1


CHIPS = {
  'v4': Chip(275e12, 32 * 2**30, {'chip_config_name': 'megacore'}),
  'v5e': Chip(197e12, 16 * 2**30),
  'v5p': Chip(459e12, 95 * 2**30),
  'v6e': Chip(918e12, 32 * 2**30),
  'tpu7x': Chip(2307e12, 192 * 2**30, devices=2),
}

# Passes of the bfloat16 matrix units that a product of the type takes in full precision.
PASSES = {'float32': 6, 'bfloat16': 1}

# The compiler must not look for a TPU, nor write its log on standard error.
ENVIRONMENT = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_MIN_LOG_LEVEL': '4',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_STDERR_LOG_LEVEL': '4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
}

# Without it the compiler schedules the instructions of a float32 convolution for minutes. Sizes of
# arrays, operations and collectives do not depend on it, but for temporaries, of which it keeps
# fewer in the chip's vector memory: they are an upper bound. The level's name is O0; jaxlib 0.10
# takes numbers alone.
QUICK = {'optimization_level': 9}

KERNEL = 'custom_call_target="tpu_custom_call"'
COLLECTIVE = re.compile(
  r'^\s*(?:ROOT )?\S+ = (.*?) '
  r'(all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter)'
  r'(-start)?\(',
  re.MULTILINE,
)
# What goes to another slice: the compiler leaves it to a runtime on the hosts.
BETWEEN_SLICES = re.compile(
  r'^\s*(?:ROOT )?\S+ = \((.*), u32\[\]\S*, token\[\]\) send\('
  r'.*_xla_megascale_transfer_type="(\w+)"',
  re.MULTILINE,
)
# A number with which a permutation is told that it has ended.
CONTEXT = re.compile(r'u32\[\]\{:S\(\d+\)\}')
ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]')


class Collectives(NamedTuple):
  """How often a kind of collective stands in a program, and the bytes, a chip.

  Of what stays within a slice they come out; of what goes to other slices they go in.
  """

  number: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
  """A program compiled for a TPU.

  Attributes:
    topology: as 'v5e:2x2'.
    chips: how many it has.
    each: pairs, images or rows of the memory bank on each chip.
    memory: None if the program does not fit.
    chip_memory: what there is, bytes.
    flops: that the task asks for, on all chips together.
    peak_seconds: what they take at the published peak, in the passes that their precision needs.
    compiler_seconds: what the compiler expects, which knows of no passes; None if it does not say.
    utilisation: flops over what the chips could do at their peak in the longer of both times; None
      if the program does not fit, or the compiler says no time.
    collectives: within a slice, by kind.
    kernels: how many Pallas kernels are in it.
    slices: of as many chips each.
    between_slices: by kind.
  """

  topology: str
  chips: int
  each: int
  memory: Memory | None
  chip_memory: int
  flops: float
  peak_seconds: float
  compiler_seconds: float | None
  utilisation: float | None
  collectives: dict[str, Collectives]
  kernels: int = 0
  slices: int = 1
  between_slices: dict[str, Collectives] = dataclasses.field(default_factory=dict)

  @property
  def bytes(self) -> int | None:
    """On each chip, all together."""
    return sum(self.memory) if self.memory else None

  def to_json(self) -> dict[str, Any]:
    """Returns the fields, without `each`, as JSON has them."""
    fields = dataclasses.asdict(self) | {'memory': self.memory and self.memory._asdict()}
    for name in ('collectives', 'between_slices'):
      fields[name] = {kind: found._asdict() for kind, found in getattr(self, name).items()}
    del fields['each']
    return fields


def check_topology(topology: str) -> None:
  """Raises UserError for what is no name of a topology."""
  name, _, shape = topology.partition(':')
  if name not in CHIPS or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', shape):
    raise UserError(
      f'no TPU topology {topology!r}: give one of {", ".join(CHIPS)} and its chips, as v5e:2x2 or '
      'v4:2x2x1'
    )


def chip_of(topology: str) -> Chip:
  """Returns what the topology consists of."""
  return CHIPS[topology.partition(':')[0]]


def mesh_of(topology: str, slices: int = 1) -> Mesh:
  """Returns the devices of a topology in a row, or of several such slices in as many rows.

  Raises:
    UserError: libtpu is not installed, or it knows no such topology.
  """
  if not importlib.util.find_spec('libtpu'):
    raise UserError("no TPU compiler is installed: pip install 'patch_svdd_jax[plan]'")
  # Read when the library is loaded, below; those that the user has set are left.
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    description = topologies.get_topology_desc(
      topology,
      'tpu',
      **chip_of(topology).options,
      **({'num_slices': slices} if slices > 1 else {}),
    )
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'no TPU topology {topology!r}, says {compiler()}: {reason}') from error
  return by_slice(description.devices)


def compiler() -> str:
  """Returns the name and version of the TPU compiler."""
  return f'libtpu {importlib.metadata.version("libtpu")}'


def chips_of(topology: str, mesh: Mesh) -> int:
  """Returns how many chips have the devices of a mesh."""
  return mesh.size // chip_of(topology).devices


def described(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
  """Returns a tree of shapes and types, laid out on a mesh."""
  sharding = NamedSharding(mesh, spec)
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
  )


def compile_fitting(
  lowered: jax.stages.Lowered, options: Mapping[str, Any]
) -> jax.stages.Compiled | None:
  """Returns the compiled program; None if it does not fit into the chips' memory."""
  try:
    return lowered.compile(dict(options))
  except jax.errors.JaxRuntimeError as error:
    if not is_out_of_memory(error):
      raise
    return None


def text_of(compiled: jax.stages.Compiled) -> str:
  """Returns a compiled program's instructions.

  Raises:
    UserError: jax cannot read them, as the compiler is too new.
  """
  try:
    return compiled.as_text() or ''
  except jax.errors.JaxRuntimeError as error:
    raise UserError(
      f'jax {jax.__version__} cannot read what {compiler()} compiled '
      f"({str(error).splitlines()[0]}): pip install 'jax[tpu]=={jax.__version__}' brings the "
      'compiler that belongs to it'
    ) from error


def compile_program(
  topology: str,
  chips: int,
  each: int,
  lowered: jax.stages.Lowered,
  *,
  flops: float,
  compute: str,
  timed: jax.stages.Lowered | None = None,
  parts: float = 1,
  slices: int = 1,
  options: Mapping[str, Any] = QUICK,
) -> Program:
  """Compiles a program.

  Args:
    topology: it was lowered for.
    chips: of all slices.
    each: pairs, images or rows of the memory bank on each chip.
    lowered: the program.
    flops: that the task asks for, on all chips together.
    compute: the type in which they are done, as `PASSES` has it.
    timed: what the compiler is asked the time of, where it is not the program.
    parts: turns of the loop that holds the work; the compiler counts its body once.
    slices: of the topology.
    options: of the compiler.
  """
  chip = chip_of(topology)
  compiled = compile_fitting(lowered, options)
  text = text_of(compiled) if compiled else ''
  asked = timed.compile() if timed else compiled
  seconds = positive(asked.cost_analysis()) if asked else None
  seconds = seconds and seconds * parts
  least = flops / (chip.peak * chips)
  # For some chips, and for several slices, the compiler leaves out what it cannot estimate.
  seconds = seconds if seconds and seconds >= least else None
  at_peak = PASSES[compute] * least
  return Program(
    topology=topology,
    chips=chips,
    each=each,
    memory=of_chip(memory_of(compiled), chip) if compiled else None,
    chip_memory=chip.memory,
    flops=flops,
    peak_seconds=at_peak,
    compiler_seconds=seconds,
    utilisation=least / max(at_peak, seconds) if compiled and seconds else None,
    collectives=counted(collectives_of(text), chip),
    kernels=text.count(KERNEL),
    slices=slices,
    between_slices=counted(between_slices_of(text), chip),
  )


def of_chip(memory: Memory, chip: Chip) -> Memory:
  """Returns what all devices of a chip hold, from what each does."""
  return Memory(*(chip.devices * held for held in memory))


def collectives_of(program: str) -> Iterator[tuple[str, int]]:
  """Finds kind and bytes of the collectives in a program's text; in a loop they stand once."""
  for result, kind, start in COLLECTIVE.findall(program):
    arrays = sizes_of(CONTEXT.sub('', result))
    if start and kind != 'all-reduce':
      # The result has the operands first, then what comes out.
      arrays = arrays[len(arrays) // 2 :]
    yield kind, sum(arrays)


def between_slices_of(program: str) -> Iterator[tuple[str, int]]:
  """Finds kind and bytes of what a device hands over for other slices; in a loop it stands once."""
  for operands, kind in BETWEEN_SLICES.findall(program):
    yield kind.lower().replace('_', '-'), sum(sizes_of(operands))


def counted(found: Iterable[tuple[str, int]], chip: Chip) -> dict[str, Collectives]:
  """Adds up what devices of a chip exchange, by kind."""
  kinds: dict[str, Collectives] = {}
  for kind, size in found:
    before = kinds.get(kind, Collectives(0, 0))
    kinds[kind] = Collectives(before.number + 1, before.bytes + chip.devices * size)
  return dict(sorted(kinds.items()))


def sizes_of(arrays: str) -> list[int]:
  """Returns the bytes of each array in a text."""
  return [array_bytes(*array) for array in ARRAY.findall(arrays)]


def array_bytes(_: str, bits: str, shape: str) -> int:
  """Returns those of an array as f32[4,128]; a truth value has no bits in its name."""
  values = math.prod(int(extent) for extent in shape.split(',') if extent)
  return values * int(bits or 8) // 8


def positive(analysis: Mapping[str, float] | None) -> float | None:
  """Returns the compiler's estimate in seconds; it counts -1 for each part it cannot estimate."""
  seconds = (analysis or {}).get('optimal_seconds', 0.0)
  return seconds if seconds > 0 else None
