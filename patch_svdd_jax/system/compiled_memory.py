"""What a compiled program says of the memory that it needs."""

from typing import Any, NamedTuple

import jax


class Memory(NamedTuple):
  """Bytes on each device; `output` without what reuses the memory of donated arguments."""

  arguments: int
  temporaries: int
  output: int


def memory_of(compiled: jax.stages.Compiled) -> Memory:
  """What a compiled program needs on each device."""
  analysis: Any = compiled.memory_analysis()
  return Memory(
    analysis.argument_size_in_bytes,
    analysis.temp_size_in_bytes,
    analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
  )


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
  """Whether a program did not fit, when it was compiled or when it ran."""
  return 'RESOURCE_EXHAUSTED' in str(error)
