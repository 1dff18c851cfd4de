"""The Pallas kernel: interpreted, against float64; and compiled, where the TPU's compiler is."""

import importlib.util
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

from patch_svdd_jax.search import screening_pallas
from patch_svdd_jax.search.screening import GROUP, NOWHERE
from patch_svdd_jax.tpu_planning.aot import ENVIRONMENT

TILE = screening_pallas.ROWS // GROUP

# (queries, groups): less than a tile of either, whole tiles, and tiles that hang over the end.
SHAPES = [(1, 1), (100, 3), (256, TILE), (300, TILE + 5), (513, 2 * TILE - 1)]

COMPILE = """
import json, jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from patch_svdd_jax.search import screening_pallas
from patch_svdd_jax.tpu_planning import aot

compiled = {}
for topology in ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2'):
  here = SingleDeviceSharding(aot.mesh_of(topology).devices.flat[0])
  program = screening_pallas.group_maxima.lower(
    jax.ShapeDtypeStruct((300, 128), jnp.bfloat16, sharding=here),
    jax.ShapeDtypeStruct((1029, 256, 128), jnp.bfloat16, sharding=here),
  ).compile()
  memory = program.memory_analysis()
  compiled[topology] = program.as_text().count(aot.KERNEL), memory.temp_size_in_bytes
print(json.dumps(compiled))
"""


def vectors(queries, groups, width=128):
  rng = np.random.default_rng(0)
  return tuple(
    jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    for shape in ((queries, width), (groups, GROUP, width))
  )


def check(maxima, queries, rows):
  products = (
    np.asarray(queries, np.float64) @ np.asarray(rows, np.float64).reshape(-1, rows.shape[-1]).T
  )
  expected = products.reshape(len(queries), -1, GROUP).max(axis=2)
  assert maxima.dtype == jnp.float32
  maxima = np.moveaxis(np.asarray(maxima), 0, 1).reshape(len(queries), -1)
  groups = expected.shape[1]
  np.testing.assert_allclose(maxima[:, :groups], expected, rtol=0, atol=1e-4)
  assert maxima.shape[1] - groups < screening_pallas.LANES
  np.testing.assert_array_equal(maxima[:, groups:], np.float32(NOWHERE))


@pytest.mark.parametrize(('queries', 'groups'), SHAPES)
def test_maxima_of_each_group(queries, groups):
  queries, rows = vectors(queries, groups)
  check(screening_pallas.group_maxima(queries, rows, interpret=True), queries, rows)


def test_wide_vectors():
  queries, rows = vectors(40, 9, width=384)
  check(screening_pallas.group_maxima(queries, rows, interpret=True), queries, rows)


@pytest.mark.parametrize(('queries', 'groups'), [(300, TILE + 5), (100, 3)])
def test_no_races(queries, groups):
  queries, rows = vectors(queries, groups)
  interpret = pltpu.InterpretParams(detect_races=True)
  check(screening_pallas.group_maxima(queries, rows, interpret=interpret), queries, rows)
  assert interpret_pallas_call.races.races_found is False


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler')
def test_it_compiles_for_tpus_and_keeps_products_out_of_their_memory():
  # The library reads its environment, and takes hold of the process, when it is loaded.
  environment = {**os.environ, **ENVIRONMENT, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', COMPILE], env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  compiled = json.loads(done.stdout)
  assert len(compiled) == 4
  for kernels, temporaries in compiled.values():
    assert kernels == 1
    # The maxima before they are transposed, of queries padded to 512; products would be 256 times.
    assert temporaries <= 4 * 512 * 1029 * 2
