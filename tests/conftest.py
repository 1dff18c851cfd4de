"""The strictness that every test runs under."""

import os
import pathlib
import signal

import jaxlib.version

# A suite that a shell started in the background ignores Ctrl-C, and so would the processes that
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes that tests start keep nothing in the developer's own cache of programs.
os.environ['PATCH_SVDD_COMPILATION_CACHE'] = 'off'

# Before jax is imported: several CPU devices stand in for several accelerators.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=4'
  # Most tests consist of compilation. Small programs compile faster in one piece, and the older
  # emitters, which jaxlib 0.12 no longer has, in half the time.
  + ' --xla_cpu_parallel_codegen_split_count=1'
  + ' --xla_cpu_use_fusion_emitters=false' * (jaxlib.version.__version_info__ < (0, 11))
)

import jax
import pytest

from tests.support import stores

jax.config.update('jax_numpy_rank_promotion', 'raise')

# Most of the suite's time is compilation: it goes without optimisations. Compiled programs are kept
# between runs and shared by pytest's workers. One that is read while another worker writes it is
# compiled all the same; setup.cfg ignores jax's warning.
COMPILATION = {
  'jax_disable_most_optimizations': True,
  'jax_persistent_cache_min_compile_time_secs': 0,
  'jax_persistent_cache_min_entry_size_bytes': -1,
}

SHARED_DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


def pytest_configure(config):
  if config.option.markexpr == 'accelerator':
    return  # on the devices there are, compiled as users compile
  jax.config.update('jax_platforms', 'cpu')
  for name, value in COMPILATION.items():
    jax.config.update(name, value)
  jax.config.update('jax_compilation_cache_dir', str(config.cache.mkdir('programs')))


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """Real images and the authors' weights, which no checkout contains."""
  if not SHARED_DATA.is_dir():
    pytest.skip(f'no real images or weights at {SHARED_DATA}')
  return SHARED_DATA


@pytest.fixture(scope='session')
def compilation():
  """The settings that programs are compiled with, by name, for other processes."""
  return {name: jax.config.values[name] for name in (*COMPILATION, 'jax_compilation_cache_dir')}


@pytest.fixture(scope='session')
def _google_store(tmp_path_factory):
  with stores.GoogleStore(tmp_path_factory.mktemp('google')) as store:
    yield store


@pytest.fixture(scope='session')
def _amazon_store(tmp_path_factory):
  with stores.AmazonStore(tmp_path_factory.mktemp('amazon')) as store:
    yield store


@pytest.fixture
def google_store(_google_store, monkeypatch):
  """What gs:// is for this process and those that it starts; empty at first."""
  _google_store.clear()
  for name, value in _google_store.variables().items():
    monkeypatch.setenv(name, value)
  return _google_store


@pytest.fixture
def amazon_store(_amazon_store, monkeypatch):
  """What s3:// is for this process and those that it starts."""
  for name, value in _amazon_store.variables().items():
    monkeypatch.setenv(name, value)
  return _amazon_store


@pytest.fixture(scope='module')
def optimised():
  """Compiles with optimisations, as users do: for what takes long or is about the program."""
  for disabled in (False, True):
    jax.config.update('jax_disable_most_optimizations', disabled)
    jax.clear_caches()
    if not disabled:
      yield
