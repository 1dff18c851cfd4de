"""Kernels, and the boundaries that support vectors draw with them."""

from typing import NamedTuple

import numpy as np

# Of the polynomial kernel (gamma x.y + 1)^DEGREE.
DEGREE = 2


class Kernel(NamedTuple):
  """A kernel k(x, y): exp(-gamma |x - y|^2), gamma x.y or (gamma x.y + 1)^DEGREE.

  Attributes:
    name: 'rbf', 'linear' or 'polynomial'.
    gamma: of all three. Scaling a linear kernel scales squared distances and nothing else.
  """

  name: str
  gamma: float

  def matrix(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns k of all pairs: f64[N, C] and f64[M, C] to f64[N, M]."""
    products = x @ y.T
    if self.name == 'rbf':
      squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * products
      values: np.ndarray = np.exp(-self.gamma * np.maximum(squares, 0))
      return values
    return self._of_products(products)

  def diagonal(self, x: np.ndarray) -> np.ndarray:
    """Returns k(x, x): f64[N, C] to f64[N]."""
    return np.ones(len(x)) if self.name == 'rbf' else self._of_products((x**2).sum(1))

  def _of_products(self, products: np.ndarray) -> np.ndarray:
    scaled = self.gamma * products
    return scaled if self.name == 'linear' else (scaled + 1) ** DEGREE


def choose(name: str, gamma: float, rows: np.ndarray) -> Kernel:
  """Returns the kernel for rows f64[N, C].

  A gamma of 0 stands for 1 / (C variance), the variance being that of all numbers of the rows
  (scikit-learn's 'scale'), so that neither the dimensions nor the unit of the rows matter.
  """
  spread = rows.shape[1] * float(rows.var())
  return Kernel(name, gamma or (1 / spread if spread else 1.0))


class Boundary(NamedTuple):
  """What separates normal from other rows in the space of a kernel: a plane or a sphere.

  score(x) = own k(x, x) - sum_i coefficients_i k(vectors_i, x) + offset, positive outside.

  Attributes:
    kernel: k.
    vectors: f64[S, C], the support vectors.
    coefficients: f64[S].
    own: 0 for a plane, 1 for a sphere, whose score is the squared distance from its centre, less
      its squared radius.
    offset: added to all scores.
  """

  kernel: Kernel
  vectors: np.ndarray
  coefficients: np.ndarray
  own: float
  offset: float

  def score(self, rows: np.ndarray) -> np.ndarray:
    """Scores rows f64[N, C], f64[N]."""
    sums = self.kernel.matrix(rows, self.vectors) @ self.coefficients
    scores: np.ndarray = self.own * self.kernel.diagonal(rows) - sums + self.offset
    return scores
