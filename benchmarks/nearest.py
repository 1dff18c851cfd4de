"""The exact search for nearest rows, beside other libraries'.

Contenders: the package's search, a plain float32 scan, faiss's IndexFlatL2, scikit-learn's brute
force and, where it is installed, PyTorch's cdist; the peers come with `pip install '.[benchmark]'`.
All search the same rows, which are prepared beforehand. Their distances are compared with float64's
first. Then they take turns, several rounds long, and medians are reported.

GFLOP/s are 2 x queries x rows x dimensions / seconds: the operations of the whole product, whether
a contender does them or finds a way round them.

  python -m benchmarks.nearest --bank 131072 --data embeddings
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure  # it draws without a screen
from scipy.spatial import distance

from benchmarks import command_line, peers, vectors
from benchmarks.peers import PLAIN, prepare_plain_scan
from patch_svdd_jax import commands
from patch_svdd_jax.benchmarking import hardware, machine, timing
from patch_svdd_jax.benchmarking.hardware import Product
from patch_svdd_jax.benchmarking.peers import Peer, Search
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.commands.console import positive
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system import figures, sharding
from patch_svdd_jax.system.batching import Progress

OURS = 'patch_svdd_jax'
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
    """Returns `gflops` of any contender."""
    return 2.0 * self.queries * self.bank * self.dim / self.seconds[contender] / 1e9


def reference(queries: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
  """Returns distances f64[Q, k] by float64 differences."""
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
  """Returns the distances of all queries, and the seconds they took."""
  start = time.perf_counter()
  found = search(queries)
  return found, time.perf_counter() - start


def affordable(queries: int, seconds: float) -> int:
  """Returns how many of the queries a search is timed on that takes `seconds` for all."""
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


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the options."""
  parser = command_line.make_parser('nearest', __doc__, rounds=5, plot='GFLOP/s over rows')
  parser.add_argument(
    '--queries',
    type=positive,
    default=3249,
    metavar='Q',
    help='default 3249: one image of 256 x 256',
  )
  parser.add_argument(
    '--bank',
    type=positive,
    nargs='+',
    default=[131072, 1039680],
    metavar='N',
    help='rows of each memory bank, default 131072 and 1039680 (320 images)',
  )
  parser.add_argument(
    '--dim', type=positive, default=64, metavar='D', help='dimensions, default 64'
  )
  parser.add_argument('--k', type=positive, default=1, help='nearest rows of each query, default 1')
  parser.add_argument(
    '--data',
    nargs='+',
    choices=vectors.KINDS,
    default=list(vectors.KINDS),
    metavar='KIND',
    help='gaussian: standard normal rows, which have no structure to exploit; embeddings: patches '
    'of the embedded textures through an untrained encoder; default both',
  )
  return parser


def run(options: argparse.Namespace) -> int:
  """Measures, prints, writes."""
  if min(options.bank) < options.k:
    raise UserError(f'--bank {min(options.bank)}: give at least --k {options.k} rows')
  outputs.check(options)
  found = {name: peer for name, peer in peers.PEERS.items() if peers.takes_part(name)}
  device = machine.device_name()
  products = {
    name: hardware.large_product(dtype, sharding.local_mesh())
    for name, dtype in hardware.DTYPES.items()
  }
  rows = []
  for kind in dict.fromkeys(options.data):
    queries, bank = vectors.KINDS[kind](
      options.queries, max(options.bank), options.dim, console.progress('Embedding')
    )
    rows += [
      measure_search(
        kind,
        queries,
        bank[:size],
        k=options.k,
        peers=found,
        products=products,
        rounds=options.rounds,
        progress=functools.partial(console.progress, unit='round'),
      )
      for size in sorted(set(options.bank))
    ]
  threads = {name: peer.threads() for name, peer in found.items()}
  print_rows(rows, device, threads, options.rounds)
  contents = summary(rows, device, threads, options.rounds)
  outputs.write(options, contents, lambda suffix: figures.encode(draw(rows, device), suffix))
  return 0


def peaks(rows: Sequence[SearchRow]) -> dict[str, float]:
  """Returns GFLOP/s of the large matrix products, the median over all rows."""
  return {
    name: statistics.median(row.peak_gflops[name] for row in rows) for name in rows[0].peak_gflops
  }


def summary(
  rows: Sequence[SearchRow], device: str, threads: Mapping[str, int], rounds: int
) -> dict[str, Any]:
  """Returns the contents of the JSON file."""
  return {
    'rows': [dataclasses.asdict(row) for row in rows],
    'device': device,
    'peak_gflops': peaks(rows),
    'threads': dict(threads),
    'rounds': rounds,
  }


def print_rows(
  rows: Sequence[SearchRow], device: str, threads: Mapping[str, int], rounds: int
) -> None:
  """Prints the table and the meaning of its figures."""
  first = rows[0]
  header = ['data', 'rows', 'GFLOP/s', *(f'of {name} peak' for name in first.peak_share)]
  header += ['fell back', *(f'{name} took' for name in first.ratio)]
  lines = []
  for row in rows:
    line = [row.data, f'{row.bank:,}', f'{row.gflops:.3g}']
    line += [f'{share:.1%}' for share in row.peak_share.values()]
    lines.append(
      [*line, f'{row.fallback_fraction:.2%}', *(f'{r:.2f} x' for r in row.ratio.values())]
    )
  sys.stderr.flush()
  print(markdown(header, lines))
  print(
    f'{first.queries:,} queries x {first.dim} dimensions, k = {first.k}, medians of {rounds} '
    f'rounds. GFLOP/s = 2 x queries x rows x dimensions / seconds: operations of the whole '
    'product, done or not.'
  )
  print(
    f'{device}; matrix products: '
    + ', '.join(f'{name} {gflops:.4g} GFLOP/s' for name, gflops in peaks(rows).items())
    + ''.join(f'; {name} {count} threads' for name, count in threads.items())
  )
  for row in rows:
    for name, count in row.timed_queries.items():
      if count < row.queries:
        print(
          f'{name} was timed on {count:,} of the queries against {row.bank:,} rows ({row.data}); '
          'its time for all is in proportion'
        )


def draw(rows: Sequence[SearchRow], device: str) -> Figure:
  """Plots GFLOP/s of each contender over the rows of the bank, a panel for each kind of data."""
  kinds = list(dict.fromkeys(row.data for row in rows))
  figure = Figure(figsize=(2.5 + 4.5 * len(kinds), 4.5), layout='constrained')
  panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
  for panel, kind in zip(panels, kinds, strict=True):
    shown = [row for row in rows if row.data == kind]
    for name in shown[0].seconds:
      gflops = [row.gflops_of(name) for row in shown]
      panel.plot([row.bank for row in shown], gflops, marker='o', label=name)
    panel.set(xscale='log', title=kind, xlabel='rows of the memory bank')
    panel.grid(alpha=0.3)
  # Last: the panels share the axis, which fits all lines until its limits are set.
  panels[0].set(ylabel='GFLOP/s', ylim=(0, None))
  figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right upper')
  figure.suptitle(f'{rows[0].queries:,} queries x {rows[0].dim} dimensions: {device}')
  return figure


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns the exit status."""
  options = make_parser().parse_args(argv)
  return commands.answer(functools.partial(run, options))


if __name__ == '__main__':
  sys.exit(main())
