"""The devices in a row, or in one for each TPU slice, and how arrays lie on them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A TPU's default for float32 is one bfloat16 pass.
PRECISION = lax.Precision.HIGHEST
SLICES, DEVICES = 'slices', 'devices'
SHARDED, REPLICATED = PartitionSpec(DEVICES), PartitionSpec()
# The name of a mapped axis, or those of several.
Axis = str | tuple[str, ...]
Tree = TypeVar('Tree')


def local_mesh() -> Mesh:
  """Returns all devices of this process in a row."""
  return Mesh(np.array(jax.local_devices()), (DEVICES,))


def all_devices() -> Mesh:
  """Returns all devices of all processes in a row."""
  return Mesh(np.array(jax.devices()), (DEVICES,))


def by_slice(devices: Sequence[jax.Device]) -> Mesh:
  """Returns devices in a row; those of several slices in a row of their own for each slice.

  The chips of a TPU slice have links of their own, slices are joined by the data-centre network:
  what is exchanged along DEVICES alone stays within each slice.
  """
  slices: dict[int, list[jax.Device]] = {}
  for device in devices:
    slices.setdefault(getattr(device, 'slice_index', 0), []).append(device)
  rows = [slices[index] for index in sorted(slices)]
  return Mesh(np.array(rows), (SLICES, DEVICES)) if rows[1:] else Mesh(np.array(*rows), (DEVICES,))


def axis_of(mesh: Mesh) -> Axis:
  """Returns what names all devices of a mesh in collectives."""
  first, *others = mesh.axis_names
  # A row of one name takes more instructions than the name.
  return (first, *others) if others else str(first)


def mean(tree: Tree, mesh: Mesh) -> Tree:
  """Returns the mean of a tree of numbers over all devices, inside of a map over a mesh.

  Where there are several slices, each sums first, and leaves a part of the sum on each device,
  which exchanges that part with those at its place in the other slices. Between large slices the
  compiler, left to itself, has every device send all of its slice's sum.
  """
  if SLICES not in mesh.axis_names:
    over_row: Tree = lax.pmean(tree, DEVICES)
    return over_row
  flat, unflatten = flatten_util.ravel_pytree(tree)
  padded = jnp.pad(flat, (0, -len(flat) % mesh.shape[DEVICES]))
  part = lax.psum(lax.psum_scatter(padded, DEVICES, tiled=True), SLICES)
  over_all: Tree = unflatten(lax.all_gather(part, DEVICES, tiled=True)[: len(flat)] / mesh.size)
  return over_all


def first_devices(count: int) -> Mesh:
  """Returns so many of the devices, the first ones, as `by_slice` does."""
  return by_slice(jax.devices()[:count])


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
