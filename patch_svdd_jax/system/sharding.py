"""The devices in a row, and how arrays lie on them."""

from typing import Any, TypeVar

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A TPU's default for float32 is one bfloat16 pass.
PRECISION = lax.Precision.HIGHEST
DEVICES = 'devices'
SHARDED, REPLICATED = PartitionSpec(DEVICES), PartitionSpec()
Tree = TypeVar('Tree')


def local_mesh() -> Mesh:
  """All devices of this process in a row."""
  return Mesh(np.array(jax.local_devices()), (DEVICES,))


def all_devices() -> Mesh:
  """All devices of all processes in a row."""
  return Mesh(np.array(jax.devices()), (DEVICES,))


def first_devices(count: int) -> Mesh:
  """So many of the devices, the first ones, in a row."""
  return Mesh(np.array(jax.devices()[:count]), (DEVICES,))


def replicate(tree: Tree) -> Tree:
  """Puts a tree on every local device, once; it may lie on those of several processes already."""
  # Fetched first: no process can move what others have.
  placed: Tree = jax.device_put(jax.device_get(tree), NamedSharding(local_mesh(), REPLICATED))
  return placed


def place(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
  """Puts a tree on a mesh, also one of several processes, each of which holds all of its values.

  Args:
    tree: arrays, numpy's or jax's.
    mesh: the devices.
    spec: how every array lies on them.
  """
  sharding = NamedSharding(mesh, spec)

  def put(array: jax.typing.ArrayLike) -> jax.Array:
    if mesh.is_multi_process:
      values = np.asarray(array)
      return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
    placed: jax.Array = jax.device_put(array, sharding)
    return placed

  return jax.tree.map(put, tree)
