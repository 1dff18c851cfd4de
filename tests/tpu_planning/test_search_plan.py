"""What can be said of the search on TPUs: shapes, figures, and the compiled program."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system.sharding import DEVICES
from patch_svdd_jax.tpu_planning import search_plan
from patch_svdd_jax.tpu_planning.search_plan import Work

needs_libtpu = pytest.mark.skipif(
  not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler'
)


@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize(('rows', 'small'), [(3000, 0), (3000, 2**20), (100, 2**20), (3, 0)])
def test_the_described_bank_is_as_a_real_one(rows, small, monkeypatch):
  monkeypatch.setattr(memory_bank, 'SMALL', small)
  mesh = Mesh(np.array(jax.devices()), (DEVICES,))
  values = np.random.default_rng(0).normal(size=(rows, 24)).astype(np.float32)
  bank = memory_bank.from_rows(values, mesh, jnp.bfloat16)
  components = bank.screen.basis.shape[1]
  queries, described = search_plan.arguments(Work(rows, 50, 24, 1, components), mesh)
  assert (queries.shape, queries.dtype) == ((50, 24), jnp.float32)
  assert jax.tree.structure(described) == jax.tree.structure(bank)
  for array, described_array in zip(jax.tree.leaves(bank), jax.tree.leaves(described), strict=True):
    assert described_array.shape == array.shape
    assert described_array.dtype == array.dtype
    assert described_array.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_flops_are_those_of_the_screening_products():
  assert Work(1_000_000, queries=1000).flops == 2 * 1000 * 1_000_000 * 128
  assert Work(10, queries=10, dim=512, components=84).flops == 2 * 10 * 10 * 256


@pytest.mark.parametrize(
  ('topology', 'work', 'named'),
  [
    ('v9:2x2', Work(10), "no TPU topology 'v9:2x2'"),
    ('v5e:2x2', Work(0), 'bank_rows=0'),
    ('v5e:2x2', Work(10, queries=0), 'queries=0'),
    ('v5e:2x2', Work(10, dim=0), 'dim=0'),
    ('v5e:2x2', Work(10, k=11), 'k=11: the memory bank has 10 rows'),
    ('v5e:2x2', Work(10, dim=8), 'components=41: the rows have 8 dimensions'),
  ],
)
def test_nonsense_is_refused(topology, work, named):
  with pytest.raises(UserError, match='^' + named) as caught:
    search_plan.compile_for(topology, work)
  assert '\n' not in str(caught.value)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match=r"pip install 'patch_svdd_jax\[plan\]'$"):
    search_plan.compile_for('v5e:2x2', Work(10))


def plan(*arguments):
  """Runs the command: the TPU's library keeps the process that loads it."""
  return subprocess.run(
    [sys.executable, '-m', 'patch_svdd_jax', 'plan', 'search', *map(str, arguments)],
    env={name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.tpu
@needs_libtpu
def test_a_topology_that_the_compiler_refuses():
  done = plan('--topology', 'v5e:3x7', '--bank-rows', 10)
  assert (done.returncode, done.stdout) == (2, '')
  assert "error: no TPU topology 'v5e:3x7', says its compiler: " in done.stderr


@pytest.mark.tpu
@needs_libtpu
def test_the_search_compiles_for_a_tpu(tmp_path):
  rows, queries, chips = 2**18, 512, 4
  file = tmp_path / 'plan.json'
  done = plan(
    '--topology', 'v5e:2x2', '--bank-rows', rows, '--queries', queries, '--json', file
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert '| v5e:2x2 ' in done.stdout
  assert done.stdout.endswith(f'written: {file}\n')
  # The library's own log is no concern of the user's.
  assert 'WARNING' not in done.stderr
  (found,) = json.loads(file.read_text())['rows']
  assert (found['chips'], found['rows_on_chip'], found['sharded']) == (chips, rows // chips, True)
  assert found['kernels'] == 1
  assert set(found['collectives']) == {'all-gather', 'all-reduce'}
  assert found['peak_seconds'] == pytest.approx(2 * queries * rows * 128 / (chips * 197e12))
  assert found['peak_seconds'] < found['compiler_seconds'] < 10 * found['peak_seconds']
  # Rows in float32 and their vectors in bfloat16; the queries are small beside them.
  bank = rows // chips * (64 * 4 + 128 * 2)
  assert bank <= found['memory']['arguments'] <= 1.02 * bank
  products = queries * (rows // chips) * 4
  assert found['memory']['temporaries'] < products / 2
