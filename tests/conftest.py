"""The strictness that every test runs under."""

import os
import pathlib

# Before jax is imported: several CPU devices stand in for several accelerators.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=4'
  # The older emitters compile in half the time, of which most tests consist.
  + ' --xla_cpu_use_fusion_emitters=false'
)

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_numpy_rank_promotion', 'raise')

SHARED_DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """Real images and the authors' weights, which no checkout contains."""
  if not SHARED_DATA.is_dir():
    pytest.skip(f'no real images or weights at {SHARED_DATA}')
  return SHARED_DATA


@pytest.fixture(scope='module')
def quick_compilation(tmp_path_factory):
  """Compiles without optimisation, and the same program once; yields the settings by name."""
  settings = {
    'jax_disable_most_optimizations': True,
    'jax_compilation_cache_dir': str(tmp_path_factory.getbasetemp() / 'programs'),
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  before = {name: jax.config.values[name] for name in settings}
  for values in (settings, before):
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    if values is settings:
      yield settings


@pytest.fixture(scope='module')
def only_quick_compilation(quick_compilation):
  """The same, and nothing of before: compiled with optimisations it could differ by a bit."""
  jax.clear_caches()
  return quick_compilation
