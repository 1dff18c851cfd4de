"""What tests share that kill processes."""

import pytest

from tests.faults import programs


@pytest.fixture(scope='module')
def environment(compilation):
  """The variables of processes that only read the cache of programs."""
  # What is killed while it writes to the cache of programs would leave half an entry behind.
  only_read = {'jax_persistent_cache_min_compile_time_secs': 3600}
  return programs.variables(compilation | only_read)
