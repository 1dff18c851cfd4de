"""Whom the search is compared with: a plain scan, and other libraries as they document theirs.

All get every processor: faiss, scikit-learn by default, PyTorch by being told.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hardware
from patch_svdd_jax.search import plain

# Queries f32[Q, D] to distances f32[Q, k], ascending.
Search = Callable[[np.ndarray], np.ndarray]

PLAIN = 'plain scan'
# The distances that PyTorch has in memory at a time: 256 MiB.
TORCH_DISTANCES = 1 << 26


class Peer(NamedTuple):
  """A library to compare with.

  Attributes:
    module: what to import.
    install: what to give to `pip install` where it is missing.
    prepare: rows f32[N, D] and k to a search.
    threads: how many it uses.
    proportional: whether its time is proportional to the queries, so that few tell the time of all.
      Faiss's is not: below 128,000 values it multiplies no matrices and takes several times as long
      for each query.
  """

  module: str
  install: str
  prepare: Callable[[np.ndarray, int], Search]
  threads: Callable[[], int]
  proportional: bool


@functools.partial(jax.jit, static_argnames='k')
def _plain_distances(queries: jax.Array, blocks: plain.Blocks, k: int) -> jax.Array:
  less_own, _ = plain.nearest(queries, blocks, k)
  return jnp.sqrt(jnp.maximum(less_own + jnp.sum(queries**2, axis=1, keepdims=True), 0))


def prepare_plain_scan(rows: np.ndarray, k: int) -> Search:
  """The plain float32 `lax.scan` over blocks of rows on one device, the yardstick."""
  blocks = plain.divide(jnp.asarray(rows))
  return lambda queries: np.asarray(_plain_distances(queries, blocks, k=k))


def prepare_faiss(rows: np.ndarray, k: int) -> Search:
  """Faiss's IndexFlatL2, whose distances are squared."""
  import faiss

  index = faiss.IndexFlatL2(rows.shape[1])
  index.add(rows)
  # Rounding makes some of them negative.
  return lambda queries: np.sqrt(np.maximum(index.search(queries, k)[0], 0))


def faiss_threads() -> int:
  """OpenMP's, as faiss sees them."""
  import faiss

  return int(faiss.omp_get_max_threads())


def prepare_scikit_learn(rows: np.ndarray, k: int) -> Search:
  """scikit-learn's brute force, which computes float32 rows' distances in float64."""
  from sklearn.neighbors import NearestNeighbors

  neighbours = NearestNeighbors(n_neighbors=k, algorithm='brute').fit(rows)
  return lambda queries: neighbours.kneighbors(queries)[0]


def scikit_learn_threads() -> int:
  """OpenMP's, as threadpoolctl, which comes with scikit-learn, sees them."""
  import sklearn.neighbors  # noqa: F401, loads its threads
  import threadpoolctl

  pools = threadpoolctl.threadpool_info()
  return max((pool['num_threads'] for pool in pools if pool['user_api'] == 'openmp'), default=1)


def prepare_torch(rows: np.ndarray, k: int) -> Search:
  """PyTorch's cdist and minimum, over blocks of rows."""
  import torch

  torch.set_num_threads(hardware.cores())
  all_rows = torch.from_numpy(rows)

  def search(queries: np.ndarray) -> np.ndarray:
    wanted = torch.from_numpy(queries)
    nearest = torch.full((len(queries), k), torch.inf)
    for block in all_rows.split(max(1, TORCH_DISTANCES // len(queries))):
      distances = torch.cdist(wanted, block)
      if k == 1:
        nearest = torch.minimum(nearest, distances.amin(1, keepdim=True))
      else:
        best = distances.topk(min(k, len(block)), largest=False).values
        nearest = torch.cat([nearest, best], 1).topk(k, largest=False).values
    found: np.ndarray = nearest.sort(1).values.numpy()
    return found

  return search


def torch_threads() -> int:
  """PyTorch's own count."""
  import torch

  return int(torch.get_num_threads())


EXTRA = "'.[benchmark]'"
PEERS = {
  'faiss': Peer('faiss', EXTRA, prepare_faiss, faiss_threads, proportional=False),
  'scikit-learn': Peer(
    'sklearn', EXTRA, prepare_scikit_learn, scikit_learn_threads, proportional=True
  ),
  'torch': Peer('torch', 'torch', prepare_torch, torch_threads, proportional=False),
}


def why_missing(peer: Peer) -> str | None:
  """Why a peer cannot be imported, in one line; None where it can."""
  try:
    importlib.import_module(peer.module)
  except (ImportError, OSError) as error:  # OSError: a library that it is linked with is missing.
    return str(error).partition('\n')[0]
  return None


def takes_part(name: str) -> bool:
  """Whether a peer is installed; a line on standard error where it is not."""
  peer = PEERS[name]
  if reason := why_missing(peer):
    print(f'{name} is left out ({reason}): pip install {peer.install}', file=sys.stderr)
  return not reason
