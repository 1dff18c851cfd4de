"""Whom the search is compared with: a plain scan, and other libraries as they document theirs.

All get every processor: faiss, scikit-learn by default, PyTorch by being told.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.benchmarking import machine, peers
from patch_svdd_jax.benchmarking.peers import Peer, Search
from patch_svdd_jax.search import plain

PLAIN = 'plain scan'
# The distances that PyTorch has in memory at a time: 256 MiB.
TORCH_DISTANCES = 1 << 26


@functools.partial(jax.jit, static_argnames='k')
def _plain_distances(queries: jax.Array, blocks: plain.Blocks, k: int) -> jax.Array:
  less_own, _ = plain.nearest(queries, blocks, k)
  return jnp.sqrt(jnp.maximum(less_own + jnp.sum(queries**2, axis=1, keepdims=True), 0))


def prepare_plain_scan(rows: np.ndarray, k: int) -> Search:
  """Returns the plain float32 `lax.scan` over blocks of rows on one device, the yardstick."""
  blocks = plain.divide(jnp.asarray(rows))
  return lambda queries: np.asarray(_plain_distances(queries, blocks, k=k))


def prepare_torch(rows: np.ndarray, k: int) -> Search:
  """Returns PyTorch's cdist and minimum, over blocks of rows."""
  import torch

  torch.set_num_threads(machine.cores())
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
  """Counts PyTorch's threads."""
  import torch

  return int(torch.get_num_threads())


PEERS = {
  **peers.PEERS,
  'torch': Peer('torch', 'torch', prepare_torch, torch_threads, proportional=False),
}


def takes_part(name: str) -> bool:
  """Returns whether a peer is installed; a line on standard error where it is not."""
  return peers.takes_part(name, (PEERS[name].module,), PEERS[name].install)
