"""The table of the self-check, which is printed at its end."""

import time

import jax
import pytest

from patch_svdd_jax.benchmarking import machine
from patch_svdd_jax.reporting.table import markdown

START = time.monotonic()
LINES = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config):
  config.stash[LINES] = []


@pytest.fixture
def report(pytestconfig):
  """Takes the lines of a check into the table."""
  return pytestconfig.stash[LINES].extend


def pytest_terminal_summary(terminalreporter, config):
  if lines := config.stash.get(LINES, []):
    header = [f'{machine.device_name()}, jax {jax.__version__}', 'found']
    took = f'{time.monotonic() - START:.0f} s'
    terminalreporter.write_line(markdown(header, [*lines, ('all of it', took)]))
