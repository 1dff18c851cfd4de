"""Other libraries that search for nearest rows, as they document it, with every processor."""

import importlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Queries f32[Q, D] to distances f32[Q, k], ascending.
Search = Callable[[np.ndarray], np.ndarray]


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
  """Returns faiss's IndexFlatL2, whose distances are squared."""
  import faiss

  index = faiss.IndexFlatL2(rows.shape[1])
  index.add(rows)
  # Rounding makes some of them negative.
  return lambda queries: np.sqrt(np.maximum(index.search(queries, k)[0], 0))


def faiss_threads() -> int:
  """Counts OpenMP's threads, as faiss sees them."""
  import faiss

  return int(faiss.omp_get_max_threads())


def prepare_scikit_learn(rows: np.ndarray, k: int) -> Search:
  """Returns scikit-learn's brute force, which computes float32 rows' distances in float64."""
  from sklearn.neighbors import NearestNeighbors

  neighbours = NearestNeighbors(n_neighbors=k, algorithm='brute').fit(rows)
  return lambda queries: neighbours.kneighbors(queries)[0]


def scikit_learn_threads() -> int:
  """Counts OpenMP's threads, as threadpoolctl, which comes with scikit-learn, sees them."""
  import sklearn.neighbors  # noqa: F401, loads its threads
  import threadpoolctl

  pools = threadpoolctl.threadpool_info()
  return max((pool['num_threads'] for pool in pools if pool['user_api'] == 'openmp'), default=1)


EXTRA = "'patch_svdd_jax[benchmark]'"
PEERS = {
  'faiss': Peer('faiss', EXTRA, prepare_faiss, faiss_threads, proportional=False),
  'scikit-learn': Peer(
    'sklearn', EXTRA, prepare_scikit_learn, scikit_learn_threads, proportional=True
  ),
}


def why_missing(module: str) -> str | None:
  """Returns why a module cannot be imported, in one line; None where it can."""
  try:
    importlib.import_module(module)
  except (ImportError, OSError) as error:  # OSError: a library that it is linked with is missing.
    return str(error).partition('\n')[0]
  return None


def takes_part(name: str, modules: tuple[str, ...], install: str) -> bool:
  """Returns whether all modules of a contender are there; a line on standard error if not."""
  for module in modules:
    if reason := why_missing(module):
      print(f'{name} is left out ({reason}): pip install {install}', file=sys.stderr)
      return False
  return True
