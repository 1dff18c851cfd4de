"""Where arrays lie: on every device, or a part on each."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.system import sharding
from tests.support.runs import mesh_of

TREE = {'a': np.arange(24, dtype=np.uint8).reshape(8, 3), 'b': np.ones(4, np.float32)}


def check(placed, parts, held_by):
  for name, values in TREE.items():
    shards = placed[name].addressable_shards
    assert [shard.device for shard in shards] == held_by
    assert {shard.data.shape for shard in shards} == {(len(values) // parts, *values.shape[1:])}
    for shard in shards:
      np.testing.assert_array_equal(shard.data, values[shard.index])
    assert placed[name].dtype == values.dtype


def test_of_one_process_all_devices_are_local():
  for mesh in (sharding.local_mesh(), sharding.all_devices()):
    assert mesh.axis_names == (sharding.DEVICES,)
    assert mesh.devices.tolist() == jax.devices()
    assert mesh.size == 4


class Described:
  """Stands in for a device of a slice."""

  def __init__(self, slice_index, number):
    self.slice_index, self.number = slice_index, number


def test_devices_of_several_slices_lie_in_a_row_for_each():
  # In no order, as nothing promises one.
  devices = [Described(slice_index, number) for number in range(3) for slice_index in (1, 0)]
  mesh = sharding.by_slice(devices)
  assert mesh.axis_names == sharding.axis_of(mesh) == (sharding.SLICES, sharding.DEVICES)
  found = [[(device.slice_index, device.number) for device in row] for row in mesh.devices]
  assert found == [[(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1), (1, 2)]]


@pytest.mark.parametrize('devices', [jax.devices(), [Described(0, 0), Described(0, 1)]])
def test_devices_of_one_slice_lie_in_a_row(devices):
  mesh = sharding.by_slice(devices)
  assert mesh.axis_names == (sharding.DEVICES,)
  assert sharding.axis_of(mesh) == sharding.DEVICES
  assert mesh.devices.tolist() == devices


@pytest.mark.parametrize('slices', [1, 2])
def test_the_mean_over_devices(slices):
  mesh = mesh_of(4, slices)
  rng = np.random.default_rng(0)
  # Seven numbers on each device: no multiple of the devices of a slice.
  values = {
    'a': rng.normal(size=(4, 2, 3)).astype(np.float32),
    'b': rng.normal(size=4).astype(np.float32),
  }
  mean = jax.shard_map(
    lambda tree: sharding.mean(jax.tree.map(lambda leaf: leaf[0], tree), mesh),
    mesh=mesh,
    in_specs=jax.sharding.PartitionSpec(mesh.axis_names),
    out_specs=sharding.REPLICATED,
    check_vma=False,
  )
  for name, found in jax.jit(mean)(values).items():
    expected = values[name].astype(np.float64).mean(axis=0)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_some_of_the_devices():
  mesh = sharding.first_devices(3)
  assert mesh.axis_names == (sharding.DEVICES,)
  assert mesh.devices.tolist() == jax.devices()[:3]


def test_replicated_on_every_device():
  check(sharding.replicate(TREE), 1, jax.devices())


def test_placed_on_some_of_the_devices():
  check(sharding.place(TREE, mesh_of(2)), 1, jax.devices()[:2])


def test_placed_in_parts():
  check(sharding.place(TREE, mesh_of(4), sharding.SHARDED), 4, jax.devices())
