"""`benchmark nearest`: the exact search for nearest rows, beside other libraries."""

import argparse
import dataclasses
import functools
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import figures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

  from patch_svdd_jax.benchmarks.nearest import SearchRow
  from patch_svdd_jax.benchmarks.peers import Peer

DESCRIPTION = """The exact search for nearest rows, beside other libraries'.

Contenders: the package's search, a plain float32 scan, faiss's IndexFlatL2, scikit-learn's brute
force and, where it is installed, PyTorch's cdist; the peers come with
`pip install 'patch_svdd_jax[benchmark]'`. All search the same rows, which are prepared beforehand.
Their distances are compared with float64's first. Then they take turns, several rounds long, and
medians are reported.

GFLOP/s are 2 x queries x rows x dimensions / seconds: the operations of the whole product, whether
a contender does them or finds a way round them.

  patch-svdd benchmark nearest --bank 131072 --data embeddings
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `benchmark nearest`."""
  parser.set_defaults(benchmark=run)
  parser.add_argument(
    '--queries', type=int, default=3249, metavar='Q', help='default 3249: one image of 256 x 256'
  )
  parser.add_argument(
    '--bank',
    type=int,
    nargs='+',
    default=[131072, 1039680],
    metavar='N',
    help='rows of each memory bank, default 131072 and 1039680 (320 images)',
  )
  parser.add_argument('--dim', type=int, default=64, metavar='D', help='dimensions, default 64')
  parser.add_argument('--k', type=int, default=1, help='nearest rows of each query, default 1')
  parser.add_argument(
    '--data',
    nargs='+',
    default=['gaussian', 'embeddings'],
    metavar='KIND',
    help='gaussian: standard normal rows, which have no structure to exploit; embeddings: patches '
    'of the embedded textures through an untrained encoder; default both',
  )
  parser.add_argument('--rounds', type=int, default=5, help='each times everyone, default 5')
  outputs.add_arguments(parser, plot='GFLOP/s over rows')


def check(options: argparse.Namespace) -> None:
  """Refuses options that make no sense, before anything is measured.

  Raises:
    UserError: names the option.
  """
  from patch_svdd_jax.benchmarks import vectors

  for name in ('queries', 'dim', 'k', 'rounds'):
    if getattr(options, name) < 1:
      raise UserError(f'--{name} {getattr(options, name)}: give at least 1')
  for rows in options.bank:
    if rows < options.k:
      raise UserError(f'--bank {rows}: give at least {options.k}, the nearest rows asked for (--k)')
  for kind in options.data:
    if kind not in vectors.KINDS:
      raise UserError(f'--data {kind}: no such data; choose of {", ".join(vectors.KINDS)}')
  outputs.check(options)


def find_peers() -> dict[str, 'Peer']:
  """The peers that are installed; a line on standard error for each of the others."""
  from patch_svdd_jax.benchmarks import peers

  found = {}
  for name, peer in peers.PEERS.items():
    if reason := peers.why_missing(peer):
      print(f'{name} is left out ({reason}): pip install {peer.install}', file=sys.stderr)
    else:
      found[name] = peer
  return found


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Measures, prints, writes."""
  from patch_svdd_jax.benchmarks import hardware, nearest, vectors

  if rest:
    raise UserError(f'unexpected argument {rest[0]!r}: see --help')
  check(options)
  peers = find_peers()
  device = hardware.device_name()
  products = {name: hardware.large_product(dtype) for name, dtype in hardware.DTYPES.items()}
  rows = []
  for kind in dict.fromkeys(options.data):
    queries, bank = vectors.KINDS[kind](
      options.queries, max(options.bank), options.dim, console.progress('Embedding')
    )
    for size in sorted(set(options.bank)):
      rows.append(
        nearest.measure_search(
          kind,
          queries,
          bank[:size],
          k=options.k,
          peers=peers,
          products=products,
          rounds=options.rounds,
          progress=functools.partial(console.progress, unit='round'),
        )
      )
  threads = {name: peer.threads() for name, peer in peers.items()}
  print_rows(rows, device, threads, options.rounds)
  contents = summary(rows, device, threads, options.rounds)
  outputs.write(options, contents, lambda suffix: figures.encode(draw(rows, device), suffix))
  return 0


def peaks(rows: Sequence['SearchRow']) -> dict[str, float]:
  """GFLOP/s of the large matrix products, the median over all rows."""
  return {
    name: statistics.median(row.peak_gflops[name] for row in rows) for name in rows[0].peak_gflops
  }


def summary(
  rows: Sequence['SearchRow'], device: str, threads: Mapping[str, int], rounds: int
) -> dict[str, Any]:
  """The contents of the JSON file."""
  return {
    'rows': [dataclasses.asdict(row) for row in rows],
    'device': device,
    'peak_gflops': peaks(rows),
    'threads': dict(threads),
    'rounds': rounds,
  }


def print_rows(
  rows: Sequence['SearchRow'], device: str, threads: Mapping[str, int], rounds: int
) -> None:
  """The table, and what its figures are."""
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
  print(console.table(header, lines))
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


def draw(rows: Sequence['SearchRow'], device: str) -> 'Figure':
  """GFLOP/s of each contender over the rows of the bank, a panel for each kind of data."""
  from matplotlib.figure import Figure  # it draws without a screen

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
