"""The matrix products that devices are fast at, by which screening vectors are chosen."""

import functools
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.system import processor

# Vectors of bfloat16 are multiples of a matrix unit's rows; of a CPU's tiles (AMX) or registers.
MATRIX_UNIT = 128
TILE, REGISTER = 32, 8


class Product(NamedTuple):
  """Products of vectors of a type, summed in float32.

  Attributes:
    dtype: float32 or bfloat16.
    unit: what the length of the vectors is a multiple of.
    cost: of a multiply-add, in those of float32.
  """

  dtype: np.dtype
  unit: int = REGISTER
  cost: float = 1.0


FLOAT32 = Product(jnp.dtype(jnp.float32))

# By what the processor names in its flags: large products of bfloat16 took this share of the time
# of float32's on two cores (`python -m benchmarks.nearest` prints both speeds).
ON_CPU = {
  'amx_bf16': Product(jnp.dtype(jnp.bfloat16), TILE, 0.28),
  'avx512_bf16': Product(jnp.dtype(jnp.bfloat16), REGISTER, 0.62),
}


@functools.cache
def products_of(platform: str) -> tuple[Product, ...]:
  """Returns what a platform ('cpu', 'gpu', 'tpu') multiplies fast."""
  if platform != 'cpu':
    return (Product(jnp.dtype(jnp.bfloat16), MATRIX_UNIT),)
  flags = processor.value_of('flags').split()
  fast = (product for flag, product in ON_CPU.items() if flag in flags)
  return FLOAT32, *itertools.islice(fast, 1)


def unit_of(platform: str) -> int:
  """Returns what the length of vectors of bfloat16 is a multiple of."""
  return max(product.unit for product in products_of(platform))
