"""How fast the machine multiplies matrices."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from patch_svdd_jax.system.sharding import DEVICES

DTYPES = {'f32': jnp.float32, 'bf16': jnp.bfloat16}
# A product is large enough when it takes so many seconds, or has so many rows and columns.
LONG_ENOUGH = 0.05
LARGEST = 16384


class Product(NamedTuple):
  """A matrix product that shows the machine's peak.

  Attributes:
    multiply: computes it and waits for it.
    flop: its floating point operations.
  """

  multiply: Callable[[], object]
  flop: float


@jax.jit
def _multiply(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns the product a b^T, summed in float32."""
  return lax.dot_general(
    a,
    b,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def product(dtype: jnp.dtype | type, side: int, mesh: Mesh) -> Product:
  """Multiplies two matrices of `side` rows and columns, sharded over devices in a row."""
  rows = -(-side // mesh.size) * mesh.size
  keys = jax.random.split(jax.random.key(0))
  a = jax.random.normal(keys[0], (rows, side), dtype)
  b = jax.random.normal(keys[1], (side, side), dtype)
  a = jax.device_put(a, NamedSharding(mesh, PartitionSpec(DEVICES)))
  b = jax.device_put(b, NamedSharding(mesh, PartitionSpec()))
  return Product(lambda: jax.block_until_ready(_multiply(a, b)), 2.0 * rows * side * side)


def large_product(dtype: jnp.dtype | type, mesh: Mesh) -> Product:
  """Returns a product so large that what surrounds it does not count; compiled."""
  side = 1024
  while True:
    candidate = product(dtype, side, mesh)
    candidate.multiply()
    start = time.perf_counter()
    candidate.multiply()
    if time.perf_counter() - start > LONG_ENOUGH or side >= LARGEST:
      return candidate
    side *= 2
