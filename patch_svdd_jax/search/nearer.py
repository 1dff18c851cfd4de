"""Finds the queries that a few more rows are nearer to than all before, and how near.

One screening product proves of most queries that no new row is nearer; the others are searched for
as ever, so the result is exact.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from patch_svdd_jax.search import block_sizes, group_products, nearest, passes, screening
from patch_svdd_jax.search.block_sizes import BlockSizes
from patch_svdd_jax.search.memory_bank import MemoryBank
from patch_svdd_jax.system.batching import pad_images

# Queries that are screened, and then searched for, at a time; padded to whole blocks, for another
# number would be another program.
SCREENED, SEARCHED = 8192, 1024


def least(queries: np.ndarray, distances: np.ndarray, bank: MemoryBank) -> np.ndarray:
  """Returns the distance of each query to the nearest of all rows, f32[Q].

  Args:
    queries: f32[Q, D].
    distances: f32[Q], to the nearest of the rows that they were compared with.
    bank: further rows, not sharded.
  """
  found = distances.copy()
  sizes = block_sizes.choose(bank.mesh.local_devices[0], bank.groups_on_device, SCREENED)
  near: list[np.ndarray] = []
  for first in range(0, len(queries), SCREENED):
    part = pad_images(queries[first : first + SCREENED], SCREENED)
    # Nothing is nearer than the padding's distance of 0.
    below = np.zeros(SCREENED, np.float32)
    own = distances[first : first + SCREENED]
    below[: len(own)] = own
    near.append(first + np.flatnonzero(may_be_nearer(part, below, bank, sizes)))
  candidates = np.concatenate([*near, np.zeros(0, int)])
  for first in range(0, len(candidates), SEARCHED):
    which = candidates[first : first + SEARCHED]
    padded = queries[np.resize(which, SEARCHED)]
    new = np.asarray(nearest.search(jnp.asarray(padded), bank).distances)[: len(which), 0]
    found[which] = np.minimum(found[which], new)
  return found


@functools.partial(jax.jit, static_argnames='sizes')
def may_be_nearer(
  queries: jax.Array, distances: jax.Array, bank: MemoryBank, sizes: BlockSizes
) -> jax.Array:
  """Returns bool[Q]: False where no row of the bank is nearer, which is proven.

  Args:
    queries: f32[Q, D].
    distances: f32[Q], that a row is to be nearer than.
    bank: not sharded.
    sizes: what is in memory at a time.
  """
  vectors, screen = bank.vectors, bank.screen

  def part(queries: jax.Array, distances: jax.Array) -> tuple[jax.Array]:
    own, squared = screening.query_vectors(screen, queries, vectors.dtype, vectors.shape[-1])
    products = group_products.maxima(own, vectors, sizes.rows, bank.layout.platform)
    bounds = screening.lower_bounds(-products.max(axis=(0, 2)), squared)
    with jax.enable_x64(True):
      worst = jnp.square(distances.astype(jnp.float64))[:, None]
    rows = passes.Rows(bank.rows, jnp.int32(0), bank.layout.group, screen.scale)
    return (passes.may_improve(bounds, worst, rows),)

  return passes.by_parts(part, sizes.queries, queries, distances)[0]
