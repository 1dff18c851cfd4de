r"""Vectors whose inner product proves that a row of the memory bank is far from a query.

A search that is exact need not compute every distance exactly: a row can be passed over if a cheap
lower bound of its distance is above a distance that was found already. Here the bound is one inner
product of vectors that are shorter than the embeddings (their leading principal components) or of a
cheaper type (bfloat16), plus what was left out, which the product itself accounts for.

**The bound.** Let q be a query, b a row, c any centre, x = q - c and y = b - c, and V any D x d
matrix of spectral norm at most 1. Then I - V V^T is positive semidefinite, and by Cauchy-Schwarz
in its inner product

  x.y  <=  V'x . V'y  +  r(x) r(y),    r(x)^2 = |x|^2 - |V'x|^2,

so that |q - b|^2 = |x|^2 + |y|^2 - 2 x.y is at least |x|^2 + |y|^2 minus twice the right side. The
columns of V are the principal axes of the bank: what they leave out, r, is small.

**Its rounding.** The vectors are computed in float64, rounded, and multiplied with accumulation in
float32. Rounding the components changes V'x . V'y by at most a |x||y|; a float32 sum of W products
is wrong by at most g = 2 W 2^-23 times the sum of their magnitudes (twice the bound for rounding to
nearest: matrix units truncate). With e >= 2 (a + g), let

  u(q) = (V'x, s(x), 1),   u(b) = (V'y, s(y), -(1 - e) |y|^2 / 2),   s(x)^2 = r(x)^2 + e |x|^2.

By Cauchy-Schwarz again, s(x) s(y) >= r(x) r(y) + e |x||y|, and the magnitudes sum up to no more
than (1 + e) |x||y| + |y|^2 / 2; so the margins e |x||y| and e |y|^2 / 2 exceed all errors, and

  |q - b|^2  >=  |x|^2 - 2 u(q).u(b)    as computed, for every query, row, centre and V.

In float32, a = 3 * 2^-24. In bfloat16 each component is split into two, v = h + l + error of
2^-18 |v|; the products hh', hl' and lh' are kept and ll' is left out, so a = 4 * 2^-18; |y|^2 / 2
takes three components.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Rows of which one minimum is kept, and which are looked at together when the nearest may be there.
GROUP = 256

# What stands for -|y|^2 / 2 where there is no row: finite, since matrix units that split their
# operands would turn an infinity into NaN.
NOWHERE = -1e30

# Widths of bfloat16 vectors are multiples of a matrix unit's rows.
MATRIX_UNIT = 128

# Principal components that fill vectors of 16, 24, 32, ... float32 and 128, 256, ... bfloat16.
COMPONENTS = {
  'float32': (14, 22, 30, 46, 62, 94, 126, 190, 254, 382, 510, 766),
  'bfloat16': (41, 84, 126, 169, 254, 340, 510, 681),
}

# Costs on a CPU, in multiply-adds of float32: of keeping the minimum, for every row, and of
# a pass over a row. Fitted to 3,249 queries x 131,072 rows at widths 16 to 66.
MINIMUM_COST = 6
PASS_COST = 10000


class Screen(NamedTuple):
  """What screening vectors are made with.

  Attributes:
    centre: f32[D], c.
    basis: f32[D, d], V: the leading principal axes of the bank, of spectral norm at most 1.
    scale: f32[], a power of two that brings |y| to around 1, out of reach of under- and overflow.
  """

  centre: jax.Array
  basis: jax.Array
  scale: jax.Array


def margin(width: int, dtype: jax.typing.DTypeLike) -> float:
  """The docstring's e, for vectors of a width and type."""
  components = 4 * 2.0**-18 if dtype == jnp.bfloat16 else 3 * 2.0**-24
  return 2 * (components + 2 * width * 2.0**-23)


def width_of(components: int, dtype: jax.typing.DTypeLike) -> int:
  """The length of the screening vectors of that many principal components."""
  if dtype != jnp.bfloat16:
    return components + 2
  return -(-(3 * components + 4) // MATRIX_UNIT) * MATRIX_UNIT


def _coordinates(screen: Screen, points: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """V'x f64[N, d], r(x)^2 f64[N] and |x|^2 f64[N] of points f32[N, D]; call it in 64 bits."""
  centre, basis, scale = (part.astype(jnp.float64) for part in screen)
  x = (points.astype(jnp.float64) - centre[None]) * scale
  leading = jnp.einsum('nk,kd->nd', x, basis, precision='highest')
  squared = jnp.sum(x * x, axis=-1)
  return leading, jnp.maximum(squared - jnp.sum(leading * leading, axis=-1), 0.0), squared


def _split(values: jax.Array, parts: int) -> list[jax.Array]:
  """bfloat16 arrays whose sum is `values`, up to 2^-9 for each of them."""
  split = []
  for _ in range(parts):
    split.append(values.astype(jnp.bfloat16))
    values = values - split[-1].astype(values.dtype)
  return split


def _rest(
  left: jax.Array, squared: jax.Array, width: int, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """s(x), rounded up."""
  rest = jnp.sqrt(left + margin(width, dtype) * squared)
  return (rest * (1 + 2 * jnp.finfo(dtype).eps)).astype(dtype)


def query_vectors(
  screen: Screen, queries: jax.Array, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
  """u(q) dtype[Q, W] and |x|^2 f32[Q] of queries f32[Q, D]."""
  width = width_of(screen.basis.shape[1], dtype)
  with jax.enable_x64(True):
    leading, left, squared = _coordinates(screen, queries)
    rest = _rest(left, squared, width, dtype)[:, None]
    squared = squared.astype(jnp.float32)
    if dtype == jnp.bfloat16:
      high, low = _split(leading, 2)
      parts = [high, high, low, rest, jnp.ones_like(rest), jnp.ones_like(rest), jnp.ones_like(rest)]
    else:
      parts = [leading.astype(dtype), rest, jnp.ones_like(rest)]
  return _join(parts, width), squared


def row_vectors(
  screen: Screen, rows: jax.Array, valid: jax.Array, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """u(b) dtype[N, W] of rows f32[N, D]; where not valid[N], one that is far from every query."""
  width = width_of(screen.basis.shape[1], dtype)
  with jax.enable_x64(True):
    leading, left, squared = _coordinates(screen, rows)
    rest = _rest(left, squared, width, dtype)[:, None]
    norm = -(1 - margin(width, dtype)) * squared / 2
    norm = jnp.where(valid, norm, NOWHERE)[:, None]
    if dtype == jnp.bfloat16:
      high, low = _split(leading, 2)
      parts = [high, low, high, rest, *_split(norm, 3)]
    else:
      parts = [leading.astype(dtype), rest, norm.astype(dtype)]
  return _join(parts, width)


def _join(parts: list[jax.Array], width: int) -> jax.Array:
  """The vectors [N, W] of their parts, with zeros behind."""
  vectors = jnp.concatenate(parts, axis=-1)
  return jnp.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))


def lower_bounds(negative_products: jax.Array, squared: jax.Array) -> jax.Array:
  """Proven lower bounds of |q - b|^2 in the screen's scale, f32[Q, ...].

  Args:
    negative_products: f32[Q, ...], -u(q).u(b), or the least of several rows.
    squared: f32[Q], |x|^2.
  """
  squared = squared.reshape(-1, *[1] * (negative_products.ndim - 1))
  # The roundings of |x|^2, of this sum and of this difference.
  slack = 2.0**-21 * (squared + 2 * jnp.abs(negative_products))
  bounds = (squared + 2 * negative_products) - slack
  # What overflowed has no bound but this one; no distance is less than 0.
  return jnp.where(bounds > 0, bounds, 0.0)


def design(sample: np.ndarray, size: int, dtype: jax.typing.DTypeLike) -> Screen:
  """The screen that is expected to find the nearest rows soonest; any is right.

  Args:
    sample: f32[groups, GROUP, D], rows of the bank.
    size: rows of the bank.
    dtype: of the screening vectors, float32 or bfloat16.
  """
  groups, _, dim = sample.shape
  points = sample.reshape(-1, dim).astype(np.float64)
  centre = points.mean(axis=0).astype(np.float32)
  points -= centre
  mean_square = np.square(points).sum(axis=1).mean()
  scale = np.exp2(-np.round(np.log2(mean_square) / 2)) if mean_square > 0 else 1.0
  _, axes = np.linalg.eigh(points.T @ points)
  axes = axes[:, ::-1]
  rotated = (points @ axes * scale).astype(np.float32).reshape(groups, GROUP, dim)
  components = _cheapest(rotated, size, dtype)
  basis = np.eye(dim, dtype=np.float32)
  if components < dim:
    basis = axes[:, :components].astype(np.float32)
    while np.linalg.norm(basis.astype(np.float64), 2) > 1:
      basis *= np.float32(1 - 2.0**-23)
  return Screen(jnp.asarray(centre), jnp.asarray(basis), jnp.asarray(scale, jnp.float32))


def _cheapest(rotated: np.ndarray, size: int, dtype: jax.typing.DTypeLike) -> int:
  """How many principal components make the search cheapest.

  Rows of the sample play the queries. With fewer components the product is cheaper, its bounds are
  looser and queries take more passes; how many, the sample tells.

  Args:
    rotated: f32[groups, GROUP, D], the sample in its principal axes.
    size: rows of the bank.
    dtype: of the screening vectors.
  """
  groups, _, dim = rotated.shape
  flat = rotated.reshape(-1, dim)
  chosen = np.linspace(0, groups, min(64, groups), endpoint=False, dtype=int)
  queries = rotated[chosen, GROUP // 2]
  # Patches of the same image lie closer than those of another one, as a query's always are.
  other = np.abs(np.arange(groups)[None] - chosen[:, None]) > 1
  if not other[:, ::2].any(axis=1).all():
    return int(dim)

  def bounds(components: int) -> np.ndarray:
    """The least bound of each group for each query."""
    left = [
      np.sqrt(np.square(part[:, components:]).sum(axis=1)).astype(np.float32)
      for part in (queries, flat)
    ]
    products = queries[:, :components] @ flat[:, :components].T + np.outer(*left)
    squared = np.square(queries).sum(axis=1)[:, None] + np.square(flat).sum(axis=1)[None]
    least = (squared - 2 * products).reshape(len(queries), groups, GROUP).min(axis=2)
    return np.where(other, least, np.inf)

  def passes_over(components: int, step: int) -> float:
    """Returns the passes that a query takes over every `step`-th group of the sample."""
    nearest = all_bounds[dim][:, ::step].min(axis=1, keepdims=True)
    return float((all_bounds[components][:, ::step] <= nearest).sum(axis=1).mean())

  def cost(components: int) -> float:
    # The bank's passes follow from how they grow from half of the sample to all of it.
    passes = passes_over(components, 1)
    growth = max(0.0, np.log2(passes / passes_over(components, 2)))
    passes *= max(1.0, size / len(flat)) ** growth
    return float(size * (width_of(components, dtype) + MINIMUM_COST) + passes * GROUP * PASS_COST)

  candidates = [dim, *(c for c in COMPONENTS[jnp.dtype(dtype).name] if c < 0.8 * dim)]
  all_bounds = {components: bounds(components) for components in candidates}
  return int(min(candidates, key=cost))
