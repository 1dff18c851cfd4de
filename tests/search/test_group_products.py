"""The largest product of each group, against numpy, whatever is multiplied at a time."""

import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.search import group_products, screening
from patch_svdd_jax.search.screening import NOWHERE, Screen

DIM, QUERIES, GROUP = 6, 5, 8


def joined(largest, groups):
  """Turns f32[turns, Q, together] to f32[Q, groups]; behind them is nothing."""
  flat = np.moveaxis(np.asarray(largest), 0, 1).reshape(QUERIES, -1)
  np.testing.assert_array_equal(flat[:, groups:], np.float32(NOWHERE))
  return flat[:, :groups]


@pytest.mark.parametrize('bank_block', [1, 8, 16, 24, 1000])
@pytest.mark.parametrize('groups', [1, 2, 7])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_maxima(dtype, groups, bank_block):
  rng = np.random.default_rng(0)
  queries = jnp.asarray(rng.normal(size=(QUERIES, DIM)), dtype)
  vectors = jnp.asarray(rng.normal(size=(groups, GROUP, DIM)), dtype)
  found = group_products.maxima(queries, vectors, bank_block, 'cpu')
  products = np.einsum(
    'qd,gid->qgi', *(np.asarray(part, np.float64) for part in (queries, vectors))
  )
  np.testing.assert_allclose(joined(found, groups), products.max(axis=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('bank_block', [1, 16, 24, 1000])
@pytest.mark.parametrize('size', [1, 8, 50, 56])
def test_maxima_of_rows_are_those_of_their_vectors(size, bank_block):
  rng = np.random.default_rng(0)
  groups = -(-size // GROUP)
  rows = np.zeros((groups * GROUP, DIM), np.float32)
  rows[:size] = rng.normal(size=(size, DIM))
  screen = Screen(jnp.asarray(rng.normal(size=DIM), jnp.float32), None, jnp.float32(0.5))
  queries, _ = screening.query_vectors(
    screen, rng.normal(size=(QUERIES, DIM)).astype(np.float32), jnp.float32
  )
  vectors = screening.row_vectors(screen, rows, np.arange(len(rows)) < size, jnp.float32)
  expected = group_products.maxima(queries, vectors.reshape(groups, GROUP, -1), bank_block, 'cpu')
  found = group_products.maxima_of_rows(
    queries, screen, jnp.asarray(rows.reshape(groups, -1)), size, GROUP, bank_block
  )
  flat = np.moveaxis(np.asarray(found), 0, 1).reshape(QUERIES, -1)
  np.testing.assert_array_equal(flat[:, :groups], joined(expected, groups))
  # Behind the last row there is nothing that a bound would not keep away.
  assert (flat[:, groups:] <= NOWHERE / 2).all()
