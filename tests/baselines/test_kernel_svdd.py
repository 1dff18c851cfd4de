"""SVDD against spheres found by hand, its own optimality, and the one-class SVM."""

import sys

import numpy as np
import pytest

from patch_svdd_jax.baselines import kernel_svdd, kernels, one_class_svm
from patch_svdd_jax.baselines.kernels import Kernel
from patch_svdd_jax.errors import UserError

clarabel = pytest.importorskip('clarabel', exc_type=ImportError)


def cloud(seed, count, dim=3):
  return np.random.default_rng(seed).normal(0, 1, (count, dim)) * [2, 1, 0.5][:dim]


@pytest.mark.parametrize(
  ('points', 'centre', 'radius'),
  [
    # Two points, the segment between them is the diameter.
    ([[0, 0], [2, 0]], [1, 0], 1),
    # An obtuse triangle: the longest side is, and the third point lies inside.
    ([[0, 0], [4, 0], [1, 0.5]], [2, 0], 2),
    # A right-angled one: Thales.
    ([[0, 0], [4, 0], [0, 3]], [2, 1.5], 2.5),
    # An equilateral one: the circumscribed circle.
    ([[0, 0], [2, 0], [1, 3**0.5]], [1, 3**-0.5], 2 / 3**0.5),
    # Equal points: nothing else to describe.
    ([[1, 2], [1, 2]], [1, 2], 0),
  ],
)
def test_smallest_enclosing_balls(points, centre, radius):
  # No row may lie outside: C is 1 or more.
  rows = np.array(points, float)
  ball = kernel_svdd.fit(rows, 1e-3, Kernel('linear', 1.0))
  queries = np.array([centre, *points, [7, -5]], float)
  expected = ((queries - centre) ** 2).sum(1) - radius**2
  # The right angle lies on the circle without holding it: there the dual is least certain.
  np.testing.assert_allclose(ball.score(queries), expected, atol=1e-5)
  np.testing.assert_allclose(ball.coefficients @ ball.vectors / 2, centre, atol=1e-5)


def test_gamma_scales_squared_distances():
  rows, queries = cloud(0, 30), cloud(1, 20)
  one, other = (kernel_svdd.fit(rows, 0.2, Kernel('linear', gamma)) for gamma in (1.0, 0.3))
  np.testing.assert_allclose(other.score(queries), 0.3 * one.score(queries), atol=1e-6)


def test_the_polynomial_kernel_is_the_linear_one_of_its_features():
  rows, queries = cloud(0, 30, 2), cloud(1, 20, 2)

  def features(x):
    # (x.y + 1)^2 = 1 + 2 x.y + sum of squares and products.
    first, second = x.T
    columns = [first * 2**0.5, second * 2**0.5, first**2, second**2, first * second * 2**0.5]
    return np.stack([np.ones(len(x)), *columns], axis=1)

  found = kernel_svdd.fit(rows, 0.2, Kernel('polynomial', 1.0)).score(queries)
  expected = kernel_svdd.fit(features(rows), 0.2, Kernel('linear', 1.0)).score(features(queries))
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('name', ['rbf', 'linear', 'polynomial'])
def test_the_dual_is_optimal_and_nu_bounds_the_outliers(name):
  rows, nu = cloud(2, 80), 0.2
  matrix, bound = Kernel(name, 0.4).matrix(rows, rows), 1 / (nu * 80)
  a = kernel_svdd.solve_dual(matrix, bound)
  assert a.sum() == pytest.approx(1)
  assert a.min() >= 0
  assert a.max() <= bound
  # Karush-Kuhn-Tucker: those inside have no weight, those outside all that is allowed.
  distances = np.diag(matrix) - 2 * matrix @ a + a @ matrix @ a
  squared = kernel_svdd.squared_radius(a, bound, distances)
  slack = 1e-5 * distances.max()
  assert (distances[a < 1e-6 * bound] <= squared + slack).all()
  assert (distances[a > (1 - 1e-6) * bound] >= squared - slack).all()
  assert (distances > squared + slack).mean() <= nu <= (distances >= squared - slack).mean()


def test_an_rbf_sphere_is_the_plane_of_the_one_class_svm():
  rows, queries, kernel = cloud(3, 60), cloud(4, 40), Kernel('rbf', 0.5)
  from_svm = kernel_svdd.fit(rows, 0.3, kernel)
  from_dual = kernel_svdd.fit_by_dual(rows, 0.3, kernel)
  # scikit-learn stops at a tolerance of 1e-3 of its dual variables, which sum to nu N here.
  np.testing.assert_allclose(from_svm.score(queries), from_dual.score(queries), atol=1e-3)
  plane = one_class_svm.fit(rows, 0.3, kernel)
  scale = 2 / (0.3 * 60)
  np.testing.assert_allclose(from_svm.score(queries), scale * plane.score(queries), atol=1e-9)


def test_without_a_row_on_the_sphere_it_lies_half_way():
  # All weights are at C or 0: libsvm's convention.
  a, distances = np.array([0.5, 0.5, 0.0]), np.array([4.0, 5.0, 2.0])
  assert kernel_svdd.squared_radius(a, 0.5, distances) == 3
  assert kernel_svdd.squared_radius(a[:2], 0.5, distances[:2]) == 4


def test_gamma_by_default_is_scikit_learns_scale():
  rows = cloud(5, 50)
  svm = one_class_svm.extra.import_module('sklearn.svm').OneClassSVM(gamma='scale').fit(rows)
  assert kernels.choose('rbf', 0.0, rows).gamma == pytest.approx(svm._gamma)
  assert kernels.choose('rbf', 0.7, rows).gamma == 0.7
  assert kernels.choose('rbf', 0.0, np.ones((4, 2))).gamma == 1


def test_a_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'clarabel', None)
  with pytest.raises(UserError, match=r"clarabel is missing: pip install '.*\[baselines\]'"):
    kernel_svdd.fit(cloud(0, 5), 0.5, Kernel('linear', 1.0))
