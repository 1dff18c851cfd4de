"""Support vector data description (Tax & Duin 2004): the smallest sphere around normal rows.

  min R^2 + C sum_i xi_i,  |phi(x_i) - c|^2 <= R^2 + xi_i,  C = 1 / (nu N),

in the space phi of a kernel. By its dual, eq. 12 of the paper,

  min_a  a'Ka - a'diag(K),  sum a = 1,  0 <= a <= C,

the centre c is sum_i a_i phi(x_i). The score is |phi(x) - c|^2 - R^2.

With an RBF kernel diag(K) is constant, and the dual is that of the one-class SVM (Schoelkopf et al.
2001, section 4), which scikit-learn solves. Otherwise a general solver, Clarabel, does; its time
grows with the cube of the rows: 2,000 take ten seconds.
"""

from typing import Any

import numpy as np
from scipy import sparse

from patch_svdd_jax.baselines import extra, one_class_svm
from patch_svdd_jax.baselines.kernels import Boundary, Kernel
from patch_svdd_jax.errors import UserError

# Of C: dual variables nearer than this to 0 or to C count as there.
AT_BOUND = 1e-6
# Of the solver: a row on the sphere must be told from one beside it.
TOLERANCE = 1e-12


def fit(rows: np.ndarray, nu: float, kernel: Kernel) -> Boundary:
  """Returns the sphere of rows f64[N, C].

  Args:
    rows: f64[N, C].
    nu: the largest share of the rows that may lie outside, in (0, 1]; below 1 / N none may.
    kernel: of all rows.

  Raises:
    UserError: a library is not installed, or the solver finds no solution.
  """
  if kernel.name == 'rbf':
    return fit_by_svm(rows, nu, kernel)
  return fit_by_dual(rows, nu, kernel)


def fit_by_svm(rows: np.ndarray, nu: float, kernel: Kernel) -> Boundary:
  """Returns the sphere of an RBF kernel, from the one-class SVM.

  The SVM's dual variables sum to nu N, those here to 1: a = alpha / (nu N). What is on the plane is
  on the sphere, so |phi(x) - c|^2 - R^2 = 2 (rho - sum_i alpha_i k(x_i, x)) / (nu N).
  """
  plane = one_class_svm.fit(rows, nu, kernel)
  scale = 2 / plane.coefficients.sum()
  # k(x, x) is 1, which the offset takes back.
  return Boundary(kernel, plane.vectors, scale * plane.coefficients, 1.0, scale * plane.offset - 1)


def fit_by_dual(rows: np.ndarray, nu: float, kernel: Kernel) -> Boundary:
  """Returns the sphere of any kernel, from its own dual."""
  matrix = kernel.matrix(rows, rows)
  # Above 1 a bound binds nothing, and only makes the problem harder to solve.
  bound = min(1.0, 1 / (nu * len(rows)))
  a = solve_dual(matrix, bound)
  squared_norm = float(a @ matrix @ a)
  distances = np.diag(matrix) - 2 * matrix @ a + squared_norm
  kept = a > AT_BOUND * bound
  offset = squared_norm - squared_radius(a, bound, distances)
  return Boundary(kernel, rows[kept], 2 * a[kept], 1.0, offset)


def solve_dual(matrix: np.ndarray, bound: float) -> np.ndarray:
  """Returns the dual variables a f64[N].

  Args:
    matrix: K f64[N, N], positive semidefinite.
    bound: C, at least 1 / N.

  Raises:
    UserError: Clarabel is not installed, or finds no solution.
  """
  clarabel = extra.import_module('clarabel')
  count = len(matrix)
  quadratic = sparse.csc_matrix(np.triu(2 * matrix))
  identity = sparse.eye(count)
  constraints = sparse.vstack([np.ones((1, count)), -identity, identity]).tocsc()
  limits = np.concatenate([[1.0], np.zeros(count), np.full(count, bound)])
  cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(2 * count)]
  options: Any = clarabel.DefaultSettings()
  options.verbose = False
  options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = TOLERANCE
  solver = clarabel.DefaultSolver(quadratic, -np.diag(matrix), constraints, limits, cones, options)
  solution = solver.solve()
  if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
    raise UserError(
      f'the sphere of SVDD was not found ({solution.status}): set another config.baseline.kernel '
      f'or config.baseline.gamma'
    )
  solved: np.ndarray = np.clip(solution.x, 0, bound)
  return solved


def squared_radius(a: np.ndarray, bound: float, distances: np.ndarray) -> float:
  """Computes R^2 from the dual variables f64[N] and the rows' squared distances f64[N].

  Rows with 0 < a < C lie on the sphere. Where there are none, all with a = 0 lie inside and all
  with a = C outside, and R^2 is taken half-way between, as LIBSVM does.
  """
  inside, outside = a <= AT_BOUND * bound, a >= (1 - AT_BOUND) * bound
  on = ~inside & ~outside
  if on.any():
    return float(distances[on].mean())
  nearest = distances[outside].min()
  return float((nearest + distances[inside].max()) / 2 if inside.any() else nearest)
