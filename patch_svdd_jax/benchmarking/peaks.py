"""The FLOP/s that devices could do: as their makers publish them, or as a matrix product shows."""

import time
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from patch_svdd_jax.benchmarking import hardware
from patch_svdd_jax.benchmarking.hardware import Product
from patch_svdd_jax.tpu_planning.aot import CHIPS, PASSES

# What jax calls the chips of `tpu_planning`.
TPUS = {'TPU v4': 'v4', 'TPU v5 lite': 'v5e', 'TPU v5': 'v5p', 'TPU v6 lite': 'v6e'}
# NVIDIA's data sheets, without sparsity: of bfloat16 by the tensor cores, and of float32 by the
# others, since products in full float32 use no tensor core.
GPUS = {
  'NVIDIA A100-SXM4-40GB': {'bfloat16': 312e12, 'float32': 19.5e12},
  'NVIDIA A100-SXM4-80GB': {'bfloat16': 312e12, 'float32': 19.5e12},
  'NVIDIA H100 80GB HBM3': {'bfloat16': 989e12, 'float32': 67e12},
  'NVIDIA H200': {'bfloat16': 989e12, 'float32': 67e12},
}
DTYPES = {'float32': hardware.DTYPES['f32'], 'bfloat16': hardware.DTYPES['bf16']}


class Peak(NamedTuple):
  """Holds the FLOP/s that devices could do together.

  Attributes:
    flops: FLOP/s; of a product, as it was when it was made.
    product: that shows it whenever it is computed; None where the figure is published.
  """

  flops: float
  product: Product | None


def published(kind: str, compute: str) -> float | None:
  """Returns the published FLOP/s of a device; None of one that is not known.

  Args:
    kind: of the device, as jax calls it.
    compute: `config.train.compute`. A TPU's float32 takes six passes of bfloat16.
  """
  if kind in TPUS:
    return CHIPS[TPUS[kind]].peak / PASSES[compute]
  return GPUS[kind][compute] if kind in GPUS else None


def of_mesh(mesh: Mesh, compute: str) -> Peak:
  """Returns the peak of the devices of a mesh in a type, measured where none is published."""
  each = published(mesh.devices.flat[0].device_kind, compute)
  if each:
    return Peak(mesh.size * each, None)
  product = hardware.large_product(DTYPES[compute], mesh)
  start = time.perf_counter()
  jax.block_until_ready(product.multiply())
  return Peak(product.flop / (time.perf_counter() - start), product)
