"""Compiles programs for TPUs ahead of time, and estimates their memory and their time.

No TPU is needed, only its compiler, the package `libtpu`. The programs are those that run; their
arguments have shapes and no values. Figures of memory and collectives are those of the compiled
program, times are estimates.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.compiled_memory import Memory, is_out_of_memory, memory_of
from patch_svdd_jax.system.sharding import DEVICES, REPLICATED


class Chip(NamedTuple):
  """What its maker publishes of a chip.

  Attributes:
    peak: of its bfloat16 matrix products, FLOP/s.
    memory: HBM, bytes.
    options: with which each of its devices is a whole chip, as it is when JAX runs there.
  """

  peak: float
  memory: int
  options: Mapping[str, str] = {}


CHIPS = {
  'v4': Chip(275e12, 32 * 2**30, {'chip_config_name': 'megacore'}),
  'v5e': Chip(197e12, 16 * 2**30),
  'v5p': Chip(459e12, 95 * 2**30),
  'v6e': Chip(918e12, 32 * 2**30),
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
ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]')


class Collectives(NamedTuple):
  """How often a kind of collective stands in a program, and the bytes that come out, a chip."""

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
    utilisation: flops over what the chips could do at their peak in the longer of both times.
    collectives: by kind.
    kernels: how many Pallas kernels are in it.
  """

  topology: str
  chips: int
  each: int
  memory: Memory | None
  chip_memory: int
  flops: float
  peak_seconds: float
  compiler_seconds: float | None
  utilisation: float
  collectives: dict[str, Collectives]
  kernels: int = 0

  @property
  def bytes(self) -> int | None:
    """On each chip, all together."""
    return sum(self.memory) if self.memory else None

  def to_json(self) -> dict[str, Any]:
    """Returns the fields, without `each`, as JSON has them."""
    fields = dataclasses.asdict(self) | {
      'memory': self.memory and self.memory._asdict(),
      'collectives': {kind: found._asdict() for kind, found in self.collectives.items()},
    }
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


def mesh_of(topology: str) -> Mesh:
  """Returns the chips of a topology in a row.

  Raises:
    UserError: libtpu is not installed, or it knows no such topology.
  """
  if not importlib.util.find_spec('libtpu'):
    raise UserError("no TPU compiler is installed: pip install 'patch_svdd_jax[plan]'")
  # Read when the library is loaded, below; those that the user has set are left.
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    description = topologies.get_topology_desc(topology, 'tpu', **chip_of(topology).options)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'no TPU topology {topology!r}, says its compiler: {reason}') from error
  return Mesh(np.array(description.devices), (DEVICES,))


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
  options: Mapping[str, Any] = QUICK,
) -> Program:
  """Compiles a program.

  Args:
    topology: it was lowered for.
    chips: of the topology.
    each: pairs, images or rows of the memory bank on each chip.
    lowered: the program.
    flops: that the task asks for, on all chips together.
    compute: the type in which they are done, as `PASSES` has it.
    timed: what the compiler is asked the time of, where it is not the program.
    parts: turns of the loop that holds the work; the compiler counts its body once.
    options: of the compiler.
  """
  chip = chip_of(topology)
  compiled = compile_fitting(lowered, options)
  text = (compiled.as_text() if compiled else None) or ''
  asked = timed.compile() if timed else compiled
  seconds = positive(asked.cost_analysis()) if asked else None
  seconds = seconds and seconds * parts
  at_peak = PASSES[compute] * flops / (chip.peak * chips)
  return Program(
    topology=topology,
    chips=chips,
    each=each,
    memory=memory_of(compiled) if compiled else None,
    chip_memory=chip.memory,
    flops=flops,
    peak_seconds=at_peak,
    compiler_seconds=seconds,
    utilisation=flops / (chip.peak * chips * max(at_peak, seconds or 0)),
    collectives=collectives_of(text),
    kernels=text.count(KERNEL),
  )


def collectives_of(program: str) -> dict[str, Collectives]:
  """Counts the collectives in a program's text; those inside of a loop stand there once."""
  found: dict[str, Collectives] = {}
  for result, kind, start in COLLECTIVE.findall(program):
    arrays = [array_bytes(*array) for array in ARRAY.findall(result)]
    if start and kind != 'all-reduce':
      # The result has the operands first, then what comes out.
      arrays = arrays[len(arrays) // 2 :]
    before = found.get(kind, Collectives(0, 0))
    found[kind] = Collectives(before.number + 1, before.bytes + sum(arrays))
  return dict(sorted(found.items()))


def array_bytes(_: str, bits: str, shape: str) -> int:
  """Returns those of an array as f32[4,128]; a truth value has no bits in its name."""
  values = math.prod(int(extent) for extent in shape.split(',') if extent)
  return values * int(bits or 8) // 8


def positive(analysis: Mapping[str, float] | None) -> float | None:
  """Returns the compiler's estimate in seconds; it counts -1 for each part it cannot estimate."""
  seconds = (analysis or {}).get('optimal_seconds', 0.0)
  return seconds if seconds > 0 else None


def largest(
  compile_at: Callable[[int], Program], first: Program, compilations: int
) -> tuple[int, int | None]:
  """Finds the most on a chip that fits, and the least that does not, of what is compiled.

  What a program holds grows linearly with the work, so two numbers tell where it is full.

  Args:
    compile_at: compiles the program with so many on each chip, a multiple of `first.each`.
    first: the program with the fewest.
    compilations: at most so many.

  Returns:
    0 if not even the first fits; no upper number if none was tried in vain.
  """
  if first.bytes is None:
    return 0, first.each
  fitting, too_many = {0: 0, 1: first.bytes}, math.inf
  multiple = 8
  for _ in range(compilations):
    found = compile_at(multiple * first.each)
    if found.bytes is None:
      too_many = multiple
    else:
      fitting[multiple] = found.bytes
    (less, less_bytes), (most, most_bytes) = sorted(fitting.items())[-2:]
    each = max(1.0, (most_bytes - less_bytes) / (most - less))
    multiple = int(most + (first.chip_memory - most_bytes) / each)
    if multiple >= too_many:
      multiple = int((most + too_many) // 2)
    if multiple <= most:
      break
  return max(fitting) * first.each, None if math.isinf(too_many) else int(too_many) * first.each
