"""The one-class support vector machine (Schoelkopf et al. 2001), by scikit-learn.

A plane separates all but a share nu of the normal rows from the origin of the kernel's space; the
score is minus the decision value, rho - sum_i alpha_i k(x_i, x).
"""

from typing import Any

import numpy as np

from patch_svdd_jax.baselines import extra
from patch_svdd_jax.baselines.kernels import DEGREE, Boundary, Kernel

# What scikit-learn calls them.
NAMES = {'rbf': 'rbf', 'linear': 'linear', 'polynomial': 'poly'}


def train(rows: np.ndarray, nu: float, kernel: Kernel) -> Any:
  """Fits scikit-learn's OneClassSVM to rows f64[N, C]."""
  svm = extra.import_module('sklearn.svm')
  # scikit-learn's linear kernel has no gamma: the rows have it.
  rows = rows * kernel.gamma**0.5 if kernel.name == 'linear' else rows
  machine = svm.OneClassSVM(
    kernel=NAMES[kernel.name], gamma=kernel.gamma, nu=nu, degree=DEGREE, coef0=1.0
  )
  return machine.fit(rows)


def fit(rows: np.ndarray, nu: float, kernel: Kernel) -> Boundary:
  """Returns the plane of rows f64[N, C].

  Args:
    rows: f64[N, C].
    nu: the largest share of the rows that may lie beyond the plane, in (0, 1].
    kernel: of all rows.

  Raises:
    UserError: scikit-learn is not installed.
  """
  machine = train(rows, nu, kernel)
  vectors, coefficients = rows[machine.support_], machine.dual_coef_[0]
  # The decision value is sum_i alpha_i k(x_i, x) + intercept.
  return Boundary(kernel, vectors, coefficients, 0.0, -float(machine.intercept_[0]))
