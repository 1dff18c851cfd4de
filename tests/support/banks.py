"""Memory banks and queries that are hard in different ways, and brute force in float64."""

import numpy as np

DIM = 24
ROWS, QUERIES = 1500, 61


def gaussian(rng, count):
  return rng.normal(size=(count, DIM))


def gaussian_pair(rng):
  """No direction is better than another: no component can be left out."""
  return gaussian(rng, ROWS), gaussian(rng, QUERIES)


def narrow(rng):
  """As the authors' K=64 embeddings of screw: without a centre their distances drown."""
  return 0.95 + 4e-4 * gaussian(rng, ROWS), 0.95 + 4e-4 * gaussian(rng, QUERIES)


def far_from_the_bank(rng):
  return 0.95 + 4e-4 * gaussian(rng, ROWS), -0.95 + 4e-4 * gaussian(rng, QUERIES)


def duplicates(rng):
  """Few different rows, so that most distances tie, many of them at 0."""
  rows, queries = rng.integers(-1, 2, (ROWS, DIM)), rng.integers(-1, 2, (QUERIES, DIM))
  rows[:, 3:], queries[:, 4:] = 0, 0
  return rows, queries


def equal_rows(rng):
  others = gaussian(rng, QUERIES - 1)
  return np.full((ROWS, DIM), 0.3), np.concatenate([np.full((1, DIM), 0.3), others])


def queries_in_the_bank(rng):
  rows = gaussian(rng, ROWS)
  return rows, rows[rng.permutation(ROWS)[:QUERIES]]


def different_norms(rng):
  norms = rng.permutation(np.logspace(-4, 4, ROWS))[:, None]
  return norms * gaussian(rng, ROWS), np.logspace(-4, 4, QUERIES)[:, None] * gaussian(rng, QUERIES)


def tight_clusters(rng):
  """Ten clusters, ten thousand times smaller than their distance from each other."""
  centres = np.tanh(gaussian(rng, 10))
  return (
    centres[rng.integers(0, 10, ROWS)] + 1e-4 * gaussian(rng, ROWS),
    centres[rng.integers(0, 10, QUERIES)] + 1e-4 * gaussian(rng, QUERIES),
  )


def few_dimensions(rng):
  """As embeddings are: most of the variance lies in few directions."""
  axes = rng.normal(size=(6, DIM))
  points = gaussian(rng, ROWS + QUERIES)
  points = points[:, :6] @ axes + 1e-3 * points
  return points[:ROWS], points[ROWS:]


def tiny_values(rng):
  return 1e-25 * gaussian(rng, ROWS), 1e-25 * gaussian(rng, QUERIES)


def large_values(rng):
  return 1e15 * gaussian(rng, ROWS), 1e15 * gaussian(rng, QUERIES)


def one_row(rng):
  return gaussian(rng, 1), gaussian(rng, QUERIES)


HARD = (
  gaussian_pair,
  narrow,
  far_from_the_bank,
  duplicates,
  equal_rows,
  queries_in_the_bank,
  different_norms,
  tight_clusters,
  few_dimensions,
  tiny_values,
  large_values,
  one_row,
)


def make(kind):
  """Rows f32[N, D] and queries f32[Q, D]."""
  rows, queries = kind(np.random.default_rng(0))
  return rows.astype(np.float32), queries.astype(np.float32)


def brute_force(queries, rows, k):
  """Distances f64[Q, k] by differences in float64, and rows; of equal ones the lowest first."""
  queries, rows = queries.astype(np.float64), rows.astype(np.float64)
  distances = np.stack([np.sqrt(((query - rows) ** 2).sum(axis=1)) for query in queries])
  order = np.argsort(distances, axis=1, kind='stable')[:, :k]
  return np.take_along_axis(distances, order, axis=1), order


def check(queries, found, expected):
  """Distances to the last digits of float32, and the very rows."""
  distances, indices = expected
  assert (found.distances.dtype, found.indices.dtype) == (np.float32, np.int32)
  np.testing.assert_allclose(
    found.distances, distances, rtol=1e-6, atol=1e-7 * min(1, distances.max())
  )
  np.testing.assert_array_equal(found.indices, indices)
  assert found.distances.shape == found.indices.shape == (len(queries), distances.shape[1])
  assert 0 <= float(found.fallback_fraction) <= 1
