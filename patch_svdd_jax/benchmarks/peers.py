"""Other libraries' exact nearest-neighbour search, each as its documentation has it.

All get every processor: faiss, scikit-learn by default, PyTorch by being told.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.benchmarks import hardware

# Queries f32[Q, D] to distances f32[Q, k], ascending.
Search = Callable[[np.ndarray], np.ndarray]

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

  return faiss.omp_get_max_threads()


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
    return nearest.sort(1).values.numpy()

  return search


def torch_threads() -> int:
  """PyTorch's own count."""
  import torch

  return torch.get_num_threads()


WITH_THE_PACKAGE = "'patch_svdd_jax[benchmark]'"
PEERS = {
  'faiss': Peer('faiss', WITH_THE_PACKAGE, prepare_faiss, faiss_threads, proportional=False),
  'scikit-learn': Peer(
    'sklearn', WITH_THE_PACKAGE, prepare_scikit_learn, scikit_learn_threads, proportional=True
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
