"""What a processor's flags say of its products."""

import pathlib

import jax.numpy as jnp
import pytest

from patch_svdd_jax.search import products
from patch_svdd_jax.system import processor


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
  """Called with the flags of a processor, it is this one."""

  def pretend(flags):
    file = tmp_path / 'cpuinfo'
    file.write_text(f'processor\t: 0\nflags\t\t: fpu {flags} sse\nbugs\t\t: none\n')
    monkeypatch.setattr(processor, 'CPUINFO', file)
    products.products_of.cache_clear()

  yield pretend
  products.products_of.cache_clear()


@pytest.mark.parametrize(
  ('flags', 'units'),
  [
    ('avx2', {}),
    ('avx512f avx512_bf16', {'bfloat16': products.REGISTER}),
    ('avx512_bf16 amx_bf16', {'bfloat16': products.TILE}),
    ('not_avx512_bf16x', {}),
  ],
)
def test_bfloat16_is_taken_where_the_processor_has_it(flags, units, cpuinfo):
  cpuinfo(flags)
  first, *others = products.products_of('cpu')
  assert first == products.FLOAT32
  assert {each.dtype.name: each.unit for each in others} == units
  assert all(each.cost < 1 for each in others)
  assert products.unit_of('cpu') == units.get('bfloat16', products.REGISTER)


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_accelerators_multiply_bfloat16(platform):
  (only,) = products.products_of(platform)
  assert (only.dtype, only.unit) == (jnp.bfloat16, products.MATRIX_UNIT)


def test_a_system_that_does_not_tell(monkeypatch):
  monkeypatch.setattr(processor, 'CPUINFO', pathlib.Path('/no/such/file'))
  products.products_of.cache_clear()
  assert products.products_of('cpu') == (products.FLOAT32,)
  products.products_of.cache_clear()
