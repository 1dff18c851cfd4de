"""The screen's promise, pair by pair: no bound is above the true distance in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patch_svdd_jax.search import products, screening
from patch_svdd_jax.search.products import Product
from patch_svdd_jax.search.screening import GROUP, Screen
from tests.support import banks

TYPES = [jnp.float32, jnp.bfloat16]

# Padded to the same shapes, all kinds share the programs of their screens.
GROUPS, QUERIES = 6, 61


def padded(rows, queries):
  """Rows f32[GROUPS * GROUP, D], which of them there are, and queries f32[QUERIES, D]."""
  valid = np.arange(GROUPS * GROUP) < len(rows)
  return (
    np.pad(rows, ((0, len(valid) - len(rows)), (0, 0))),
    valid,
    queries[np.arange(QUERIES) % len(queries)],
  )


def random_screen(rows, columns, seed=0):
  """Any centre, and axes that have nothing to do with the rows."""
  rng = np.random.default_rng(seed)
  size = np.abs(rows).max()
  axes, _ = np.linalg.qr(rng.normal(size=(rows.shape[1], columns)))
  shrunk = 0.999 * axes * rng.uniform(0.3, 1, columns)
  return Screen(
    jnp.asarray(size * rng.normal(size=rows.shape[1]), jnp.float32),
    jnp.asarray(shrunk, jnp.float32),
    jnp.float32(2.0 ** -np.round(np.log2(size))),
  )


def designed(rows, columns, dtype):
  """The screen that the rows get, with only its first axes."""
  sample = rows[np.arange(GROUPS * GROUP) % len(rows)].reshape(GROUPS, GROUP, -1)
  screen = screening.design(sample, len(rows), [Product(jnp.dtype(dtype))])
  axes = [np.asarray(part) for part in (screen.basis, screen.rough) if part is not None]
  axes = np.hstack(axes or [np.eye(rows.shape[1], dtype=np.float32)])
  return screen._replace(basis=jnp.asarray(axes[:, :columns]), rough=None)


@jax.jit
def products_and_bounds(query_vectors, squared, row_vectors):
  products = jnp.einsum(
    'qw,bw->qb',
    query_vectors,
    row_vectors,
    precision='highest',
    preferred_element_type=jnp.float32,
  )
  return products, screening.lower_bounds(-products, squared)


def bounds_of(screen, rows, queries, dtype):
  """Bounds f32[Q, N] of all pairs, and of all queries to where there is no row."""
  count = len(rows)
  rows, valid, queries = padded(rows, queries)
  query_vectors, squared = screening.query_vectors(screen, queries, dtype)
  row_vectors = screening.row_vectors(screen, rows, valid, dtype)
  assert query_vectors.dtype == row_vectors.dtype == dtype
  accurate, rough = screening.components_of(screen)
  width = screening.width_of(accurate, dtype, rough)
  assert query_vectors.shape[1] == row_vectors.shape[1] == width
  _, bounds = products_and_bounds(query_vectors, squared, row_vectors)
  return np.asarray(bounds[:, :count]), np.asarray(bounds[:, count:])


def true_distances(screen, rows, queries):
  """Squared distances in the screen's scale, f64[Q, N], and |x|^2 + |y|^2."""
  centre = np.asarray(screen.centre, np.float64)
  scale = float(screen.scale)
  rows, queries = (np.asarray(points, np.float64) for points in (rows, queries))
  distances = np.stack([((query - rows) ** 2).sum(axis=1) for query in queries])
  squared = [((points - centre) ** 2).sum(axis=1) for points in (queries, rows)]
  return scale**2 * distances, scale**2 * (squared[0][:, None] + squared[1][None])


def check(screen, rows, queries, dtype):
  queries = queries[np.arange(QUERIES) % len(queries)]
  bounds, nowhere = bounds_of(screen, rows, queries, dtype)
  true, norms = true_distances(screen, rows, queries)
  assert (bounds <= true).all()
  assert (bounds >= 0).all()
  # Far above the bound of any row, however much its own norm.
  assert (nowhere > 1e6 * max(bounds.max(), 1)).all()
  return bounds, true, norms


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('kind', banks.HARD)
class TestNoBoundIsTooHigh:
  def test_and_with_all_components_it_is_tight(self, kind, dtype):
    rows, queries = banks.make(kind)
    screen = designed(rows, banks.DIM, dtype)._replace(basis=jnp.eye(banks.DIM))
    bounds, true, norms = check(screen, rows, queries, dtype)
    # The margin that s takes and that of |y|^2, twice, and as much for the roundings they cover.
    margin = screening.margin(screening.width_of(banks.DIM, dtype), dtype)
    assert (bounds >= true - 4 * margin * norms).all()

  @pytest.mark.parametrize('columns', [1, 7])
  def test_with_few_components(self, kind, dtype, columns):
    rows, queries = banks.make(kind)
    check(designed(rows, columns, dtype), rows, queries, dtype)

  @pytest.mark.parametrize('columns', [1, 7, banks.DIM])
  def test_with_any_centre_and_axes(self, kind, dtype, columns):
    rows, queries = banks.make(kind)
    check(random_screen(rows, columns), rows, queries, dtype)

  def test_without_axes(self, kind, dtype):
    rows, queries = banks.make(kind)
    screen = random_screen(rows, 7)
    check(screen._replace(basis=jnp.zeros_like(screen.basis)), rows, queries, dtype)


def mixed(screen, accurate, rough):
  """The screen with some of its axes accurate, the next ones rough, the others left out."""
  return screen._replace(
    basis=screen.basis[:, :accurate], rough=screen.basis[:, accurate : accurate + rough]
  )


@pytest.mark.parametrize('kind', banks.HARD)
class TestNoBoundOfRoughComponentsIsTooHigh:
  @pytest.mark.parametrize(('accurate', 'rough'), [(0, banks.DIM), (3, 21), (2, 9), (0, 1)])
  def test_pair_by_pair(self, kind, accurate, rough):
    rows, queries = banks.make(kind)
    screen = mixed(designed(rows, banks.DIM, jnp.bfloat16), accurate, rough)
    check(screen, rows, queries, jnp.bfloat16)

  def test_with_any_centre_and_axes(self, kind):
    rows, queries = banks.make(kind)
    check(mixed(random_screen(rows, banks.DIM), 2, 15), rows, queries, jnp.bfloat16)

  def test_they_are_tight_where_they_are_short(self, kind):
    rows, queries = banks.make(kind)
    screen = mixed(designed(rows, banks.DIM, jnp.bfloat16), 0, banks.DIM)
    bounds, true, norms = check(screen, rows, queries, jnp.bfloat16)
    # Each vector's error is at most 2^-8 of it, counted twice, and |x||y| half of the squares' sum.
    assert (bounds >= true - (4.2 * 2**-8) * norms - 1e-4 * norms).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
  seed=st.integers(0, 2**32 - 1),
  exponent=st.floats(-6, 6),
  spread=st.floats(0, 6),
  split=st.integers(0, banks.DIM),
  near=st.booleans(),
)
def test_any_mixture(seed, exponent, spread, split, near):
  """Components of any sizes; queries that lie beside rows, where a bound has least room."""
  rng = np.random.default_rng(seed)
  sizes = 10.0 ** (exponent - spread * np.sort(rng.random(banks.DIM)))
  rows = (sizes * rng.normal(size=(GROUPS * GROUP, banks.DIM))).astype(np.float32)
  queries = (sizes * rng.normal(size=(QUERIES, banks.DIM))).astype(np.float32)
  if near:
    queries = (rows[:QUERIES] + 1e-4 * queries).astype(np.float32)
  # The number of axes is that of one program; where they are zero, they are left out.
  eye = jnp.eye(banks.DIM)
  kept = jnp.where(jnp.arange(banks.DIM)[None] < split, eye, 0)
  screen = Screen(
    jnp.asarray(rows.mean(axis=0)), kept, jnp.float32(2.0 ** -np.round(exponent * np.log2(10)))
  )
  check(screen._replace(rough=eye - kept), rows, queries, jnp.bfloat16)


def test_without_the_errors_of_rough_components_bounds_are_too_high(monkeypatch):
  rough = screening.rough_components

  def without_errors(components):
    rounded, *lengths = rough(components)
    return rounded, *(0 * length for length in lengths)

  monkeypatch.setattr(screening, 'rough_components', without_errors)
  rows, queries = banks.make(banks.tight_clusters)
  screen = mixed(designed(rows, banks.DIM, jnp.bfloat16), 0, banks.DIM)
  bounds, _ = bounds_of(screen, rows, queries, jnp.bfloat16)
  queries = queries[np.arange(QUERIES) % len(queries)]
  assert (bounds > true_distances(screen, rows, queries)[0]).any()


@pytest.mark.parametrize('dtype', TYPES)
def test_what_is_left_out_takes_no_more_than_its_norms(dtype):
  # |q-b|^2 - bound <= 2 (r(x) r(y) - rest of x . rest of y) <= 4 r(x) r(y), and the margins.
  rows, queries = banks.make(banks.few_dimensions)
  screen = designed(rows, 7, dtype)
  bounds, true, norms = check(screen, rows, queries, dtype)
  basis, centre = (np.asarray(part, np.float64) for part in (screen.basis, screen.centre))
  left = [
    np.sqrt(((points - centre) ** 2).sum(1) - (((points - centre) @ basis) ** 2).sum(1))
    for points in (queries.astype(np.float64), rows.astype(np.float64))
  ]
  margin = screening.margin(screening.width_of(7, dtype), dtype)
  slack = 4 * float(screen.scale) ** 2 * np.outer(*left)
  # s^2 = r^2 + e |x|^2 on both sides: s(x) s(y) is no more than r(x) r(y) + all three mixed terms.
  norm = np.sqrt(norms)
  mixed = 2 * np.sqrt(margin) * float(screen.scale) * (left[0][:, None] + left[1][None]) * norm
  assert (bounds >= true - 1.1 * (slack + mixed) - 4 * margin * norms).all()


def lost_in_accumulation():
  """Queries that are rows: a large component, and many that vanish when they are added to it."""
  rows = np.full((QUERIES, 1024), 2.0**-12.6, np.float32)
  rows[:, 0] = np.linspace(1, 1.5, QUERIES)
  return Screen(jnp.zeros(1024), jnp.eye(1024), jnp.float32(1)), rows, rows


@pytest.mark.parametrize('dtype', TYPES)
def test_what_is_lost_in_accumulation(dtype):
  check(*lost_in_accumulation(), dtype)


@pytest.mark.parametrize('dtype', TYPES)
def test_without_a_margin_bounds_are_too_high(dtype, monkeypatch):
  monkeypatch.setattr(screening, 'margin', lambda width, dtype: 0.0)
  screen, rows, queries = lost_in_accumulation()
  bounds, _ = bounds_of(screen, rows, queries, dtype)
  assert (bounds > true_distances(screen, rows, queries)[0]).any()


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('kind', banks.HARD)
def test_the_design_keeps_its_promises(kind, dtype):
  rows, _ = banks.make(kind)
  screen = designed(rows, banks.DIM, dtype)
  centre, basis, scale = (np.asarray(part, np.float64) for part in screen[:3])
  assert np.linalg.norm(basis, 2) <= 1
  assert np.frexp(scale)[0] == 0.5  # a power of two
  distances = ((rows.astype(np.float64) - centre) ** 2).sum(axis=1)
  if distances.mean() > 1e-60:
    assert 0.4 < scale**2 * distances.mean() < 2.5


def large_sample(kind):
  """Rows f32[40, GROUP, 64], of as many images as groups."""
  rng = np.random.default_rng(0)
  points = rng.normal(size=(40 * GROUP, 64))
  if kind == 'few_dimensions':
    points = points[:, :6] @ rng.normal(size=(6, 64)) + 1e-3 * points
  return points.astype(np.float32).reshape(40, GROUP, 64)


def test_the_design_keeps_what_is_worth_its_cost():
  few, all_alike = (
    screening.design(large_sample(kind), 40 * GROUP, [products.FLOAT32])
    for kind in ('few_dimensions', 'gaussian')
  )
  assert few.basis.shape == (64, screening.COMPONENTS[0])
  assert all_alike.basis is None
  # They are the axes in which the rows lie: nothing of note is left out.
  points = large_sample('few_dimensions').reshape(-1, 64).astype(np.float64)
  points -= np.asarray(few.centre, np.float64)
  kept = points @ np.asarray(few.basis, np.float64)
  assert (kept**2).sum() > (1 - 1e-5) * (points**2).sum()
  # Where most groups are looked at, a bank a thousand times larger has a thousand times the looks.
  large = screening.design(large_sample('gaussian'), 2**25, [products.FLOAT32])
  assert large.basis is None
  # In bfloat16 few components are split, and many more take one place each.
  unit = Product(jnp.dtype(jnp.bfloat16), products.MATRIX_UNIT)
  for kind, least in (('few_dimensions', 6), ('gaussian', 64)):
    accurate, rough = screening.components_of(
      screening.design(large_sample(kind), 2**20, [unit], GROUP)
    )
    assert least <= accurate + rough
    assert screening.width_of(accurate, jnp.bfloat16, rough) == 128


def test_the_cheaper_product_is_taken():
  def dtype(cost):
    choice = [products.FLOAT32, Product(jnp.dtype(jnp.bfloat16), cost=cost)]
    return screening.dtype_of(screening.design(large_sample('gaussian'), 2**20, choice))

  assert dtype(0.2) == jnp.bfloat16
  assert dtype(5.0) == jnp.float32


def test_a_sample_of_one_place_leaves_nothing_out():
  screen = screening.design(large_sample('few_dimensions')[:1], 2**20, [products.FLOAT32])
  assert screening.is_tight(screen)


@pytest.mark.parametrize(
  ('components', 'dtype', 'width'),
  [
    (14, jnp.float32, 16),
    (64, jnp.float32, 66),
    (41, jnp.bfloat16, 128),
    (42, jnp.bfloat16, 256),
    (64, jnp.bfloat16, 256),
    (84, jnp.bfloat16, 256),
  ],
)
def test_width(components, dtype, width):
  assert screening.width_of(components, dtype) == width


def test_listed_components_fill_their_vectors():
  for components in screening.COMPONENTS:
    assert screening.width_of(components, jnp.float32) % 8 == 0


@pytest.mark.parametrize('unit', [8, 32, 128])
@pytest.mark.parametrize('dim', [1, 5, 64, 300])
def test_kinds_fit_their_vectors(dim, unit):
  first, *others = screening.kinds(dim, Product(jnp.dtype(jnp.bfloat16), unit))
  assert (first.accurate, first.rough) == (dim, 0)
  for kind in others:
    assert 0 <= kind.accurate <= kind.accurate + kind.rough <= dim
    assert kind.width % unit == 0
    assert kind.width <= max(-(-width // unit) * unit for width in screening.WIDTHS)


def test_overflow_gives_the_bound_that_always_holds():
  bounds = screening.lower_bounds(
    jnp.array([[jnp.inf, -jnp.inf, jnp.nan, -3.0]]), jnp.array([jnp.inf])
  )
  np.testing.assert_array_equal(bounds, jnp.zeros((1, 4)))
