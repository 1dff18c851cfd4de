"""The search for the nearest rows beside its peers, on the same vectors, in the same minutes."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.spatial import distance

from patch_svdd_jax.benchmarks import timing
from patch_svdd_jax.benchmarks.hardware import Product
from patch_svdd_jax.benchmarks.peers import Peer, Search
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system.batching import Progress

OURS = 'patch_svdd_jax'
PLAIN = 'plain scan'
PLAIN_BLOCK = 1024
# A search that takes more seconds is timed on so many queries as take about as long, if it can be.
LONGEST = 60.0
# Queries whose distances are compared with float64's, and the rows compared at a time.
SAMPLE = 16
REFERENCE_BLOCK = 1 << 16
# Errors allowed: ours is relative to the distance. The others compute the square of the distance as
# |q|^2 - 2 q.b + |b|^2, so theirs is relative to |q|^2 + |b|^2.
OUR_ERROR, OUR_ABSOLUTE_ERROR = 1e-6, 1e-7
SQUARED_ERROR = 1e-5


@dataclasses.dataclass(frozen=True)
class SearchRow:
  """What was measured on one memory bank.

  Attributes:
    data: the kind of vectors.
    queries, bank, dim, k: Q queries, each for its k nearest of N rows of D dimensions.
    gflops: ours; 2 Q N D / seconds / 1e9, the operations of the whole product, done or not.
    fallback_fraction: share of queries that needed more than k passes.
    ratio: how many times ours is as fast as each contender.
    peak_gflops: of large matrix products of the types 'f32' and 'bf16'.
    peak_share: the share of them that gflops are.
    seconds: of all queries, by contender.
    timed_queries: those that a contender was timed on; the seconds of all follow in proportion.
  """

  data: str
  queries: int
  bank: int
  dim: int
  k: int
  gflops: float
  fallback_fraction: float
  ratio: dict[str, float]
  peak_share: dict[str, float]
  peak_gflops: dict[str, float]
  seconds: dict[str, float]
  timed_queries: dict[str, int]

  def gflops_of(self, contender: str) -> float:
    """As `gflops`, of any contender."""
    return 2.0 * self.queries * self.bank * self.dim / self.seconds[contender] / 1e9


@functools.partial(jax.jit, static_argnames='k')
def _plain_scan(queries: jax.Array, blocks: jax.Array, norms: jax.Array, k: int) -> jax.Array:
  """Distances f32[Q, k] to rows f32[blocks, block, D] of squared norms f32[blocks, block]."""

  def visit(best: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    rows, norms = part
    products = lax.dot_general(
      queries, rows, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    less_own = norms[None] - 2 * products
    if k == 1:
      return jnp.minimum(best, less_own.min(axis=1, keepdims=True)), None
    return -lax.top_k(-jnp.concatenate([best, less_own], axis=1), k)[0], None

  none_yet = jnp.full((len(queries), k), jnp.inf)
  less_own, _ = lax.scan(visit, none_yet, (blocks, norms))
  own = jnp.sum(queries**2, axis=1, keepdims=True)
  return jnp.sqrt(jnp.maximum(less_own + own, 0))


def prepare_plain_scan(rows: np.ndarray, k: int) -> Search:
  """The plain float32 `lax.scan` over blocks of rows on one device, the yardstick."""
  padding = -len(rows) % PLAIN_BLOCK
  blocks = jnp.pad(rows, ((0, padding), (0, 0)))
  norms = jnp.where(jnp.arange(len(blocks)) < len(rows), jnp.sum(blocks**2, axis=1), jnp.inf)
  blocks, norms = blocks.reshape(-1, PLAIN_BLOCK, rows.shape[1]), norms.reshape(-1, PLAIN_BLOCK)
  return lambda queries: np.asarray(_plain_scan(queries, blocks, norms, k=k))


def reference(queries: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
  """Distances f64[Q, k] by float64 differences."""
  best = np.full((len(queries), k), np.inf)
  for first in range(0, len(rows), REFERENCE_BLOCK):
    found = distance.cdist(queries, rows[first : first + REFERENCE_BLOCK])
    best = np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :k]
  return best


def check(name: str, found: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> None:
  """Refuses a contender whose distances f32[Q, k] of a sample are not those of float64.

  Raises:
    UserError: says which distance is wrong.
  """
  chosen = np.unique(np.linspace(0, len(found) - 1, SAMPLE).astype(int))
  found, expected = found[chosen], reference(queries[chosen], rows, found.shape[1])
  if name == OURS:
    wrong = ~np.isclose(found, expected, rtol=OUR_ERROR, atol=OUR_ABSOLUTE_ERROR)
  else:
    norms = np.einsum('qd,qd->q', queries[chosen], queries[chosen])
    allowed = SQUARED_ERROR * (norms[:, None] + np.einsum('nd,nd->n', rows, rows).max())
    wrong = ~(abs(found.astype(np.float64) ** 2 - expected**2) <= allowed)
  if wrong.any():
    query, place = np.argwhere(wrong)[0]
    raise UserError(
      f'{name} finds the distance {found[query, place]:.9g} for query {chosen[query]} where '
      f'float64 finds {expected[query, place]:.9g}: nothing was timed'
    )


def warm_up(search: Search, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """The distances of all queries, and the seconds they took."""
  start = time.perf_counter()
  found = search(queries)
  return found, time.perf_counter() - start


def affordable(queries: int, seconds: float) -> int:
  """How many of the queries a search is timed on that takes `seconds` for all."""
  return queries if seconds <= LONGEST else max(1, int(queries * LONGEST / seconds))


def measure_search(
  data: str,
  queries: np.ndarray,
  rows: np.ndarray,
  *,
  k: int,
  peers: Mapping[str, Peer],
  products: Mapping[str, Product],
  rounds: int,
  progress: Callable[[str], Progress],
) -> SearchRow:
  """Times all contenders in turn on one memory bank.

  What is prepared once for a bank is not timed; every search starts from queries in NumPy and ends
  with distances there.

  Args:
    data: the kind of vectors, for the row.
    queries: f32[Q, D].
    rows: f32[N, D].
    k: nearest rows wanted, at most N.
    peers: by name.
    products: large matrix products, by name of the precision.
    rounds: each times everyone once; medians are reported.
    progress: a title to a progress bar.

  Raises:
    UserError: the contenders disagree.
  """
  bank = memory_bank.from_rows(rows)
  searches: dict[str, Search] = {
    OURS: lambda some: np.asarray(nearest.search(jnp.asarray(some), bank, k=k).distances),
    PLAIN: prepare_plain_scan(rows, k),
  }
  searches |= {name: peer.prepare(rows, k) for name, peer in peers.items()}
  timed_queries = {}
  names = list(searches)
  title = f'{data}, {len(rows):,} rows'
  for index in progress(f'{title}: check')(range(len(names))):
    name = names[index]
    found, seconds = warm_up(searches[name], queries)
    check(name, found, queries, rows)
    proportional = name in peers and peers[name].proportional
    timed_queries[name] = affordable(len(queries), seconds) if proportional else len(queries)
  calls: dict[str, Callable[[], object]] = {
    name: functools.partial(search, queries[: timed_queries[name]])
    for name, search in searches.items()
  }
  calls |= {name: product.multiply for name, product in products.items()}
  taken = timing.interleave(calls, progress(title)(range(rounds)))
  scaled = {name: taken[name] * len(queries) / timed_queries[name] for name in searches}
  flop = 2.0 * len(queries) * rows.size
  speeds = {name: product.flop / taken[name] / 1e9 for name, product in products.items()}
  return SearchRow(
    data=data,
    queries=len(queries),
    bank=len(rows),
    dim=rows.shape[1],
    k=k,
    gflops=float(flop / np.median(scaled[OURS]) / 1e9),
    fallback_fraction=float(nearest.search(jnp.asarray(queries), bank, k=k).fallback_fraction),
    ratio={
      name: float(np.median(scaled[name] / scaled[OURS])) for name in searches if name != OURS
    },
    peak_share={
      name: float(np.median(flop / scaled[OURS] / 1e9 / speed)) for name, speed in speeds.items()
    },
    peak_gflops={name: float(np.median(speed)) for name, speed in speeds.items()},
    seconds={name: float(np.median(values)) for name, values in scaled.items()},
    timed_queries=timed_queries,
  )
