"""How long phases take, by intervals that are known, and what is printed and drawn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import phases
from benchmarks.trace_file import Interval, Trace
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import compilation_cache
from patch_svdd_jax.system.profiling import Profile

MS = 1e6
# Two steps of 100 ms, 50 ms apart.
STEPS = [Interval('train', 0, 100 * MS), Interval('train', 150 * MS, 250 * MS)]
OPERATIONS = [
  Interval('encoder', 10 * MS, 40 * MS),
  Interval('encoder', 30 * MS, 60 * MS),  # on another thread
  Interval('losses', 50 * MS, 70 * MS),
  Interval('encoder', 90 * MS, 160 * MS),
]


def test_shares_of_the_steps():
  rows = phases.rows_of(Trace(OPERATIONS, [Interval('save', 100 * MS, 130 * MS)], STEPS))
  found = {row['name']: (row['milliseconds'], row['share']) for row in rows}
  assert found == {
    'step: train': (100, 1),
    'device: encoder': (35, 0.35),
    'device: losses': (10, 0.1),
    'device idle': (60, 0.6),
    'host: save': (15, 0.15),
  }


def test_covered_time_is_that_of_a_count_by_instants():
  rng = np.random.default_rng(0)
  for _ in range(20):
    numbers = rng.integers(0, 50, (12, 2))
    intervals = [Interval('', start, start + length) for start, length in numbers]
    instants = {i for each in intervals for i in range(each.start, each.end)}
    assert phases.covered(intervals) == len(instants)


def test_a_trace_of_no_whole_step_is_refused():
  with pytest.raises(UserError, match='no whole step'):
    phases.rows_of(Trace(OPERATIONS, [], []))


@pytest.fixture
def folder(tmp_path):
  """A trace of two steps."""
  x = jnp.ones((64, 64))
  with compilation_cache.compiled_anew():
    program = jax.jit(jax.named_scope('encoder')(lambda x: jnp.tanh(x @ x)))
    program(x)
  with Profile(tmp_path / 'traces') as profile:
    for _ in profile.over('score', range(3), 3):
      jax.block_until_ready(program(x))
  return tmp_path / 'traces'


def test_the_newest_trace_is_told_and_drawn(folder, tmp_path, capsys):
  files = tmp_path / 'phases.json', tmp_path / 'phases.png'
  arguments = ['--json', str(files[0]), '--plot', str(files[1]), '--close-up', '0:1']
  assert phases.main([str(folder), *arguments]) == 0
  assert '| device: encoder |' in capsys.readouterr().out
  rows = {row['name']: row['share'] for row in json.loads(files[0].read_text())}
  assert 0 < rows['device: encoder'] < 1
  assert rows['device: encoder'] + rows['device idle'] <= 1.001
  assert files[1].read_bytes().startswith(b'\x89PNG')


def test_a_folder_without_a_trace_is_refused(tmp_path, capsys):
  assert phases.main([str(tmp_path)]) == 2
  assert 'has no trace' in capsys.readouterr().err
