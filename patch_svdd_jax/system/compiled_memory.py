"""What a compiled program says of the memory that it needs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Memory(NamedTuple):
  """Bytes on each device; `output` without what reuses the memory of donated arguments."""

  arguments: int
  temporaries: int
  output: int


def memory_of(compiled: jax.stages.Compiled) -> Memory:
  """Returns the bytes that a compiled program needs on each device."""
  analysis: Any = compiled.memory_analysis()
  return Memory(
    analysis.argument_size_in_bytes,
    analysis.temp_size_in_bytes,
    analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
  )


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
  """Returns whether a program did not fit, when it was compiled or when it ran."""
  return 'RESOURCE_EXHAUSTED' in str(error)


def largest(
  bytes_at: Callable[[int], int | None],
  unit: int,
  unit_bytes: int | None,
  memory: int,
  compilations: int,
) -> tuple[int, int | None]:
  """Finds the most work that fits, and the least that does not, of what is compiled.

  What a program holds grows linearly with the work, so two numbers tell where it is full.

  Args:
    bytes_at: compiles the program for so much work, a multiple of `unit`; the bytes that it holds
      on a device, None if the compiler says that it does not fit.
    unit: the least work.
    unit_bytes: what the program holds for that.
    memory: of a device, bytes.
    compilations: at most so many.

  Returns:
    0 if not even the unit fits; no upper number if none was tried in vain.
  """
  if unit_bytes is None or unit_bytes > memory:
    return 0, unit
  fitting, too_many = {0: 0, 1: unit_bytes}, math.inf
  multiple = 8
  for _ in range(compilations):
    found = bytes_at(multiple * unit)
    if found is None or found > memory:
      too_many = multiple
    else:
      fitting[multiple] = found
    (less, less_bytes), (most, most_bytes) = sorted(fitting.items())[-2:]
    each = max(1.0, (most_bytes - less_bytes) / (most - less))
    multiple = int(most + (memory - most_bytes) / each)
    if multiple >= too_many:
      multiple = int((most + too_many) // 2)
    if multiple <= most:
      break
  return max(fitting) * unit, None if math.isinf(too_many) else int(too_many) * unit
