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
nearest: matrix units truncate). With e >= a + 2 g, let

  u(q) = (V'x, s(x), 1),   u(b) = (V'y, s(y), -(1 - e) |y|^2 / 2),   s(x)^2 = r(x)^2 + e |x|^2.

By Cauchy-Schwarz again, s(x) s(y) >= r(x) r(y) + e |x||y|, and the magnitudes sum up to no more
than (1 + e) |x||y| + |y|^2 / 2; so the margins e |x||y| and e |y|^2 / 2 exceed all errors (the
second g has room for e g and for the roundings of s and of |y|^2 / 2), and

  |q - b|^2  >=  |x|^2 - 2 u(q).u(b)    as computed, for every query, row, centre and V.

In float32, a = 6 * 2^-24. In bfloat16, which has 8 bits, each component is split into two,
v = h + l + error, where |l| is at most 2^-8 |v| and the error half of the last bit of l, 2^-17 |v|.
The products hh', hl' and lh' are kept and ll' is left out, so a = 2^-16 + 2 * 2^-17, and 2^-21 for
their own products; |y|^2 / 2 takes three components.

**Rough components.** A component that is rounded to one bfloat16 takes a third of the place. Let x'
be such components of a query, x^ what they are rounded to, and dx = x' - x^; and so for y. Then

  x'.y' - x^.y^  =  dx.y' + x^.dy  <=  |dx||y'| + |x^||dy|,

which is one more inner product, of (|dx|, |x^|) and (|y'|, |dy|), rounded up. The lengths of the
errors are those that were made: some .0016 of |x'|, where 2^-8 = .0039 is the worst of a component.
That is little where x' is short: the leading components, which are long, are split, and the many
small ones are rough. (All rough, the bound is too loose for embeddings, whose squared distance to
the nearest row is some 3 % of the squared norm; all split, the vectors are too long.)
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.search.products import MATRIX_UNIT, Product

# Rows of a group on accelerators; blocks of rows are multiples of it.
GROUP = 256

# What stands for -|y|^2 / 2 where there is no row: finite, since matrix units that split their
# operands would turn an infinity into NaN.
NOWHERE = -1e30

# Principal components that fill vectors of 16, 24, 32, ... float32.
COMPONENTS = (14, 22, 30, 46, 62, 94, 126, 190, 254, 382, 510, 766)

# Leading components that are split, and lengths of bfloat16 vectors, to choose from.
SPLIT = (0, 4, 8, 16, 32, 64, 128)
WIDTHS = (32, 48, 64, 72, 96, 128, 160, 192, 256, 384, 512, 768, 1024)

# Places beside the components: for s, for three parts of |y|^2 / 2, and for what is rough, two.
AROUND, AROUND_ROUGH = 4, 6

# Costs on a CPU, in multiply-adds of float32: of keeping a group's maximum, for every row; of a
# look at a group, and of each value of its rows. Fitted to 1,000 and 3,249 queries x 8,192 to
# 262,144 rows, gaussian and embeddings, at widths 24 to 104.
MAXIMUM_COST = 11
LOOK_COST, VALUE_COST = 100_000, 66

# For each look beyond the first that the sample's rows take, so many of a query: it begins anew,
# and lies farther from the bank than the bank's own rows do. Fitted likewise.
FURTHER = 4

# A look takes as long as the product with so many groups; a query that has taken more looks than
# its bank has such parts is screened anew.
PRODUCT = 64

# Of fewer runs a sample tells little, and where rows are so few, a shorter product gains little.
FEWEST = 32


class Screen(NamedTuple):
  """What screening vectors are made with.

  Attributes:
    centre: f32[D], c.
    basis: f32[D, d], V: the leading principal axes of the bank, of spectral norm at most 1; None
      for the identity, which leaves nothing out.
    scale: f32[], a power of two that brings |y| to around 1, out of reach of under- and overflow.
    rough: f32[D, r], further axes, whose components are rounded to one bfloat16 each; with `basis`
      they are V. None of a screen for float32.
  """

  centre: jax.Array
  basis: jax.Array | None
  scale: jax.Array
  rough: jax.Array | None = None


def dtype_of(screen: Screen) -> jax.typing.DTypeLike:
  """Returns the type of the vectors that a screen was designed for."""
  dtype: jax.typing.DTypeLike = jnp.float32 if screen.rough is None else jnp.bfloat16
  return dtype


def components_of(screen: Screen) -> tuple[int, int]:
  """Returns how many components are accurate, and how many are rough."""
  accurate = len(screen.centre) if screen.basis is None else screen.basis.shape[1]
  return accurate, 0 if screen.rough is None else screen.rough.shape[1]


def is_tight(screen: Screen) -> bool:
  """Returns whether no vectors have higher bounds: those of all components in float32."""
  return screen.basis is None and screen.rough is None


def margin(width: int, dtype: jax.typing.DTypeLike) -> float:
  """Returns the docstring's e, for vectors of a width and type."""
  components = 2.0**-15 + 2.0**-21 if dtype == jnp.bfloat16 else 6 * 2.0**-24
  return components + 2 * (2 * width * 2.0**-23)


def width_of(
  components: int, dtype: jax.typing.DTypeLike, rough: int = 0, unit: int = MATRIX_UNIT
) -> int:
  """Returns the length of the screening vectors.

  Args:
    components: principal components that are accurate.
    dtype: of the vectors.
    rough: components that are not.
    unit: what bfloat16 vectors are padded to a multiple of.
  """
  if dtype != jnp.bfloat16:
    return components + 2
  slots = 3 * components + rough + (AROUND_ROUGH if rough else AROUND)
  return -(-slots // unit) * unit


def _coordinates(screen: Screen, points: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns V'x f64[N, d + r], r(x)^2 and |x|^2 f64[N] of points f32[N, D], in 64 bits."""
  centre, scale = screen.centre.astype(jnp.float64), screen.scale.astype(jnp.float64)
  x = (points.astype(jnp.float64) - centre[None]) * scale
  squared = jnp.sum(x * x, axis=-1)
  if screen.basis is None:
    return x, jnp.zeros_like(squared), squared
  axes = [screen.basis] + ([] if screen.rough is None else [screen.rough])
  basis = jnp.concatenate(axes, axis=1).astype(jnp.float64)
  leading = jnp.einsum('nk,kd->nd', x, basis, precision='highest')
  return leading, jnp.maximum(squared - jnp.sum(leading * leading, axis=-1), 0.0), squared


def _split(values: jax.Array, parts: int) -> list[jax.Array]:
  """Returns bfloat16 arrays whose sum is `values`, up to 2^-8 of the rest for each of them."""
  split = []
  for _ in range(parts):
    split.append(values.astype(jnp.bfloat16))
    values = values - split[-1].astype(values.dtype)
  return split


def _rounded_up(squared: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  """Returns square roots [N, 1] of f[N], rounded up."""
  return (jnp.sqrt(squared) * (1 + 2 * jnp.finfo(dtype).eps)).astype(dtype)[:, None]


def rough_components(components: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns components f64[N, r] in bfloat16, their length, that of those, and of the error.

  Lengths are bfloat16[N, 1], rounded up; of no components they are bfloat16[N, 0].
  """
  rounded = components.astype(jnp.bfloat16)
  if not components.shape[1]:
    return rounded, rounded, rounded, rounded

  def length(vectors: jax.Array) -> jax.Array:
    return _rounded_up(jnp.sum(vectors * vectors, axis=-1), jnp.bfloat16)

  back = rounded.astype(jnp.float64)
  return rounded, length(components), length(back), length(components - back)


def query_vectors(
  screen: Screen, queries: jax.Array, dtype: jax.typing.DTypeLike, width: int | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns u(q) dtype[Q, W] and |x|^2 f32[Q] of queries f32[Q, D]."""
  accurate, rough = components_of(screen)
  width = width or width_of(accurate, dtype, rough)
  with jax.enable_x64(True):
    leading, left, squared = _coordinates(screen, queries)
    rest = _rounded_up(left + margin(width, dtype) * squared, dtype)
    squared = squared.astype(jnp.float32)
    one = jnp.ones((len(queries), 1), dtype)
    if dtype == jnp.bfloat16:
      high, low = _split(leading[:, :accurate], 2)
      rounded, _, of_rounded, of_error = rough_components(leading[:, accurate:])
      parts = [high, high, low, rounded, of_error, of_rounded, rest, one, one, one]
    else:
      parts = [leading.astype(dtype), rest, one]
  return _join(parts, width), squared


def row_vectors(
  screen: Screen,
  rows: jax.Array,
  valid: jax.Array,
  dtype: jax.typing.DTypeLike,
  width: int | None = None,
) -> jax.Array:
  """Returns u(b) dtype[N, W] of rows f32[N, D]; where not valid[N], one far from every query."""
  accurate, rough = components_of(screen)
  width = width or width_of(accurate, dtype, rough)
  with jax.enable_x64(True):
    leading, left, squared = _coordinates(screen, rows)
    rest = _rounded_up(left + margin(width, dtype) * squared, dtype)
    norm = -(1 - margin(width, dtype)) * squared / 2
    norm = jnp.where(valid, norm, NOWHERE)[:, None]
    if dtype == jnp.bfloat16:
      high, low = _split(leading[:, :accurate], 2)
      rounded, of_all, _, of_error = rough_components(leading[:, accurate:])
      parts = [high, low, high, rounded, of_all, of_error, rest, *_split(norm, 3)]
    else:
      parts = [leading.astype(dtype), rest, norm.astype(dtype)]
  return _join(parts, width)


def _join(parts: list[jax.Array], width: int) -> jax.Array:
  """Returns the vectors [N, W] of their parts, with zeros behind."""
  vectors = jnp.concatenate(parts, axis=-1)
  return jnp.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))


def lower_bounds(negative_products: jax.Array, squared: jax.Array) -> jax.Array:
  """Returns proven lower bounds of |q - b|^2 in the screen's scale, f32[Q, ...].

  Args:
    negative_products: f32[Q, ...], -u(q).u(b), or the least of several rows.
    squared: f32[Q], |x|^2.
  """
  squared = squared.reshape(-1, *[1] * (negative_products.ndim - 1))
  # The roundings of |x|^2, of this sum and of this difference; and what underflowed.
  slack = 2.0**-21 * (squared + 2 * jnp.abs(negative_products)) + 2.0**-100
  bounds = (squared + 2 * negative_products) - slack
  # What overflowed has no bound but this one; no distance is less than 0.
  return jnp.where(bounds > 0, bounds, 0.0)


def design(
  sample: np.ndarray, size: int, products: Sequence[Product], group: int = GROUP
) -> Screen:
  """Returns the screen that is expected to find the nearest rows soonest; any is right.

  Args:
    sample: f32[runs, rows, D], runs of rows of the bank.
    size: rows of the bank.
    products: of which types of vectors there is a choice.
    group: rows of which one maximum is kept.
  """
  runs, length, dim = sample.shape
  points = sample.reshape(-1, dim).astype(np.float64)
  centre = points.mean(axis=0).astype(np.float32)
  points -= centre
  mean_square = np.square(points).sum(axis=1).mean()
  scale = np.exp2(-np.round(np.log2(mean_square) / 2)) if mean_square > 0 else 1.0
  _, axes = np.linalg.eigh(points.T @ points)
  axes = axes[:, ::-1]
  rotated = (points @ axes * scale).astype(np.float32).reshape(runs, length, dim)
  kind = _cheapest(rotated, size, group, [kind for each in products for kind in kinds(dim, each)])
  centre, scale = jnp.asarray(centre), jnp.asarray(scale, jnp.float32)
  rough = kind.product.dtype == jnp.bfloat16
  if kind.accurate == dim and not rough:
    return Screen(centre, None, scale)
  basis = axes[:, : kind.accurate + kind.rough].astype(np.float32)
  while np.linalg.norm(basis.astype(np.float64), 2) > 1:
    basis *= np.float32(1 - 2.0**-23)
  split = [jnp.asarray(part) for part in np.split(basis, [kind.accurate], axis=1)]
  return Screen(centre, split[0], scale, split[1] if rough else None)


class Kind(NamedTuple):
  """Describes what screening vectors may be made of.

  Attributes:
    product: of what type they are.
    accurate: leading principal components that are as accurate as can be.
    rough: the next ones, rounded to one bfloat16.
  """

  product: Product
  accurate: int
  rough: int

  @property
  def width(self) -> int:
    """W."""
    return width_of(self.accurate, self.product.dtype, self.rough, self.product.unit)


def kinds(dim: int, product: Product) -> list[Kind]:
  """Returns what vectors of a type may be made of; first, what leaves nothing out."""
  if product.dtype != jnp.bfloat16:
    return [Kind(product, each, 0) for each in (dim, *(c for c in COMPONENTS if c < 0.8 * dim))]
  found = {Kind(product, dim, 0): None}
  for width in WIDTHS:
    room = -(-width // product.unit) * product.unit - AROUND_ROUGH
    for split in SPLIT:
      accurate = min(split, dim, room // 3)
      rough = min(room - 3 * accurate, dim - accurate)
      # A rough component that is split takes two places more.
      more = min(rough, (room - 3 * accurate - rough) // 2)
      found[Kind(product, accurate + more, rough - more)] = None
  return list(found)


def splittable(components: int, unit: int) -> int:
  """Returns how many of the components can be split in vectors of a unit's least multiple."""
  room = -(-(components + AROUND_ROUGH) // unit) * unit - AROUND_ROUGH
  return min(components, (room - components) // 2)


def _cheapest(rotated: np.ndarray, size: int, group: int, kinds: Sequence[Kind]) -> Kind:
  """Returns the kind of vectors that makes the search cheapest.

  With fewer components the product is cheaper, its bounds are looser and queries look at more
  groups; at how many, the sample tells. Half of the queries are played by its rows, and half by
  sums of two rows, which vary as the rows do and are no near copies of any, as rows of images of
  one scene are of each other: else anomalous queries, or merely new ones, would come to be screened
  anew.

  Args:
    rotated: f32[runs, rows, D], the sample in its principal axes.
    size: rows of the bank.
    group: rows of a group.
    kinds: the first leaves nothing out.
  """
  runs, length, dim = rotated.shape
  flat = rotated.reshape(-1, dim)
  chosen = np.linspace(0, runs, min(32, runs), endpoint=False, dtype=int)
  rows = rotated[chosen, length // 2]
  queries = np.concatenate([rows, (rows + np.roll(rows, len(rows) // 2, axis=0)) / np.sqrt(2)])
  # Patches of the same image lie closer than those of another one, as a query's always are.
  run = np.arange(runs * length // group) * group // length
  other = np.abs(run[None] - chosen[:, None]) > 1
  other = np.concatenate([other, np.ones_like(other)])
  if runs < FEWEST:
    return kinds[0]
  squares, errors = (
    [np.pad(np.cumsum(each(part) ** 2, axis=1), ((0, 0), (1, 0))) for part in (queries, flat)]
    for each in (np.asarray, lambda part: part - part.astype(jnp.bfloat16).astype(np.float32))
  )
  norms = squares[0][:, -1:] + squares[1][None, :, -1]

  @functools.cache
  def products(components: int) -> np.ndarray:
    found: np.ndarray = queries[:, :components] @ flat[:, :components].T
    return found

  def bounds(kind: Kind) -> np.ndarray:
    """Returns the least bound of each group for each query."""
    kept = kind.accurate + kind.rough
    left = [
      np.sqrt(
        np.maximum(each[:, -1] - each[:, kept], 0)
        + margin(kind.width, kind.product.dtype) * each[:, -1]
      )
      for each in squares
    ]
    rough, error = (
      [np.sqrt(np.maximum(part[:, kept] - part[:, kind.accurate], 0)) for part in each]
      for each in (squares, errors)
    )
    rounding = np.outer(error[0], rough[1]) + np.outer(rough[0], error[1])
    bounds = norms - 2 * (products(kept) + np.outer(*left) + rounding)
    return np.where(other, bounds.reshape(len(queries), -1, group).min(axis=2), np.inf)

  distances = (norms - 2 * products(dim)).reshape(len(queries), -1, group).min(axis=2)
  distances = np.where(other, distances, np.inf)

  def cost(kind: Kind) -> float:
    found = bounds(kind)

    def looks(step: int) -> np.ndarray:
      """Counts the groups at which each query looks, of every `step`-th of the sample."""
      nearest = distances[:, ::step].min(axis=1, keepdims=True)
      counts: np.ndarray = np.maximum(1, (found[:, ::step] <= nearest).sum(axis=1))
      return counts

    # The bank's looks follow from how they grow from half of the sample to all of it.
    growth = max(0.0, np.log2(looks(1).mean() / looks(2).mean()))
    further = FURTHER * (looks(1) * max(1.0, size / len(flat)) ** growth - 1)
    look = LOOK_COST + VALUE_COST * group * dim
    most = size / group / PRODUCT
    anew = np.where(further > most, size * (dim + 2 + MAXIMUM_COST), 0)
    product = size * (kind.width * kind.product.cost + MAXIMUM_COST)
    return float(product + look + (look * np.minimum(further, most) + anew).mean())

  return min(kinds, key=cost)
