"""What devices could do, by their makers or by a product."""

import pytest

from patch_svdd_jax.benchmarking import hardware, peaks
from patch_svdd_jax.system import sharding


@pytest.mark.parametrize(
  ('kind', 'compute', 'flops'),
  [
    ('TPU v5 lite', 'bfloat16', 197e12),
    ('TPU v5 lite', 'float32', 197e12 / 6),
    ('TPU v5', 'bfloat16', 459e12),
    ('NVIDIA H200', 'bfloat16', 989e12),
    ('NVIDIA H200', 'float32', 67e12),
    ('NVIDIA H200 NVL', 'float32', None),
    ('cpu', 'float32', None),
  ],
)
def test_published(kind, compute, flops):
  assert peaks.published(kind, compute) == flops


def test_that_of_a_mesh_is_published_or_measured(monkeypatch):
  mesh, asked = sharding.first_devices(2), []

  def product(dtype, of_mesh):
    asked.append((dtype, of_mesh))
    return hardware.Product(lambda: None, 1e6)

  monkeypatch.setattr(hardware, 'large_product', product)
  found = peaks.of_mesh(mesh, 'bfloat16')
  assert found.product.flop == 1e6
  assert found.flops > 1e6
  assert asked == [(hardware.DTYPES['bf16'], mesh)]
  monkeypatch.setitem(peaks.GPUS, mesh.devices.flat[0].device_kind, {'bfloat16': 3e12})
  assert peaks.of_mesh(mesh, 'bfloat16') == (6e12, None)
