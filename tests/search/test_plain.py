"""The plain search against brute force in float64."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.search import plain


@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize('count', [5, 1024, 2500])
def test_the_nearest_rows_are_found(count, k):
  rng = np.random.default_rng(0)
  queries, rows = (rng.standard_normal((n, 16), dtype=np.float32) for n in (37, count))
  squared = ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(-1)
  least, numbers = jax.jit(lambda q, r: plain.nearest(q, plain.divide(r), k))(queries, rows)
  np.testing.assert_array_equal(numbers, np.argsort(squared, axis=1)[:, :k])
  own = (queries.astype(np.float64) ** 2).sum(1, keepdims=True)
  np.testing.assert_allclose(least + own, np.sort(squared, axis=1)[:, :k], rtol=1e-5)


def test_of_equal_rows_the_first_is_found():
  rows = np.repeat(np.eye(3, dtype=np.float32), 1000, axis=0)
  _, numbers = plain.nearest(np.eye(3, dtype=np.float32), plain.divide(rows))
  np.testing.assert_array_equal(numbers[:, 0], [0, 1000, 2000])
