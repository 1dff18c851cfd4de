"""The strictness that every test runs under."""

import os
import pathlib

# Before jax is imported: several CPU devices stand in for several accelerators.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
)

import jax
import pytest

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_numpy_rank_promotion', 'raise')

SHARED_DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """Real images and the authors' weights, which no checkout contains."""
  if not SHARED_DATA.is_dir():
    pytest.skip(f'no real images or weights at {SHARED_DATA}')
  return SHARED_DATA
