"""The self-check of a GPU or TPU; `make test-accelerator` prints its table.

The same checks run on a CPU, with less to do, where they are slow.
"""

import jax
import pytest

from tests.accelerator import checks
from tests.accelerator.checks import Sizes
from tests.support.runs import tiny_config

ACCELERATOR = pytest.param(
  'accelerator',
  # What is strange to jax there is no mistake of ours.
  marks=[pytest.mark.accelerator, pytest.mark.filterwarnings('default')],
)


@pytest.fixture(params=[ACCELERATOR, pytest.param('cpu', marks=pytest.mark.slow)])
def sizes(request):
  """How much is measured; skips where there is no accelerator."""
  backend = jax.default_backend()
  if request.param == 'cpu':
    request.getfixturevalue('optimised')
    return Sizes(tiny_config(), rows=20_000, queries=200, batches=(8, 16), seconds=0.5)
  if backend == 'cpu':
    pytest.skip('no GPU or TPU: jax computes on the CPU (install jax[cuda] or jax[tpu])')
  return checks.full_sizes()


@pytest.mark.usefixtures('sizes')
def test_the_search_is_exact(report):
  report(checks.exact_search())


@pytest.mark.usefixtures('sizes')
def test_the_authors_figures_on_some_screws(report, shared_data, tmp_path):
  report(checks.screw_figures(shared_data, tmp_path))


def test_training_is_that_of_a_cpu(report, sizes):
  report(checks.same_training(sizes))


@pytest.mark.parametrize(
  'measure', [checks.embedding_speed, checks.search_speed, checks.training_speed]
)
def test_how_fast_it_is(report, sizes, measure):
  report(measure(sizes))
