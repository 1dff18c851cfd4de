"""Where arrays lie: on every device, or a part on each."""

import jax
import numpy as np

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
