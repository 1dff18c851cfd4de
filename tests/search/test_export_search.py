"""The plain search against brute force in float64."""

import jax
import numpy as np
import pytest

from patch_svdd_jax.search import export_search


def assert_equal_to_brute_force(queries, rows, k):
  differences = queries.astype(np.float64)[:, None] - rows
  distances = np.sort(np.linalg.norm(differences, axis=-1), axis=1)
  found = jax.jit(export_search.mean_distance, static_argnames='k')(
    queries, export_search.group(rows), k=k
  )
  np.testing.assert_allclose(found, distances[:, :k].mean(axis=1), rtol=1e-5)


def drawn(seed, count, dim=16, spread=1.0, offset=0.0):
  rng = np.random.default_rng(seed)
  return (offset + spread * rng.normal(size=(count, dim))).astype(np.float32)


@pytest.mark.parametrize(
  ('rows', 'k', 'spread', 'offset'),
  [
    (3000, 1, 1.0, 0.0),
    (1024, 5, 1.0, 0.0),  # no row of padding
    (3, 3, 1.0, 0.0),  # every row
    (1, 1, 1.0, 0.0),  # a centre
    (3000, 1, 4e-4, 0.95),  # as the authors' encoder of screw has them
    (2500, 2, 1e-3, 3e4),  # a spread of half a unit in float32's last place
  ],
)
def test_distances_are_those_of_brute_force(rows, k, spread, offset):
  rows = drawn(0, rows, spread=spread, offset=offset)
  queries = np.concatenate([drawn(1, 40, spread=spread, offset=offset), drawn(2, 3), rows[:2]])
  assert_equal_to_brute_force(queries, rows, k)


def test_clouds_of_rows_that_are_far_apart():
  """As of plain background: a product of single precision cannot tell the rows of one cloud."""
  clouds = drawn(0, 12, spread=3.0)
  rows = np.concatenate([cloud + drawn(i, 1000, spread=1e-3) for i, cloud in enumerate(clouds)])
  rows = np.random.default_rng(0).permutation(rows)
  queries = clouds + drawn(50, 12, spread=5e-4)
  assert_equal_to_brute_force(queries, rows, 1)
