"""The matrix products that show the machine's peak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.benchmarking import hardware
from patch_svdd_jax.system import sharding


@pytest.mark.parametrize('dtype', hardware.DTYPES.values(), ids=hardware.DTYPES)
def test_the_product_is_divided_over_all_devices_and_its_operations_are_counted(dtype):
  product = hardware.product(
    dtype, 10, sharding.local_mesh()
  )  # does not divide by the four devices
  result = product.multiply()
  assert result.shape == (12, 10)
  assert result.dtype == jnp.float32
  assert product.flop == 2 * 12 * 10 * 10
  assert len(result.sharding.device_set) == len(jax.local_devices())


def test_the_product_of_float32_is_right_to_float32():
  keys = jax.random.split(jax.random.key(0))
  a, b = (np.asarray(jax.random.normal(key, (64, 64)), np.float64) for key in keys)
  np.testing.assert_allclose(
    hardware.product(jnp.float32, 64, sharding.first_devices(2)).multiply(), a @ b.T, atol=1e-4
  )


def test_products_grow_until_they_take_long_or_are_the_largest(monkeypatch):
  monkeypatch.setattr(hardware, 'LONG_ENOUGH', 1e9)
  monkeypatch.setattr(hardware, 'LARGEST', 2048)
  sides = []

  def product(_dtype, side, _mesh):
    sides.append(side)
    return hardware.Product(lambda: None, side)

  monkeypatch.setattr(hardware, 'product', product)
  assert hardware.large_product(jnp.float32, sharding.local_mesh()).flop == 2048
  assert sides == [1024, 2048]
  monkeypatch.setattr(hardware, 'LONG_ENOUGH', -1)
  assert hardware.large_product(jnp.float32, sharding.local_mesh()).flop == 1024
