"""How much the search holds in memory at a time, from the devices' free memory and caches."""

import os
from typing import NamedTuple

import jax
import psutil

from patch_svdd_jax.search.screening import GROUP

# Of the free memory, what the bounds and their copies may take: a share, and on a CPU, where others
# need memory too, this many bytes at most.
BOUNDS_SHARE = 8
BOUNDS_ON_CPU = 192 * 2**20
BOUNDS_COPIES = 3

# Queries and rows of one product on an accelerator: enough to keep its matrix units busy.
MOST_QUERIES = 4096
ROWS_ON_ACCELERATOR = 8192

# Where the system does not tell the size of its last-level cache.
USUAL_CACHE = 8 * 2**20

# Of a device's free memory, what a bank may take; a larger one stays on the host.
BANK_SHARE = 0.7


class BlockSizes(NamedTuple):
  """What is in memory at a time.

  Attributes:
    queries: whose bounds to all groups of rows are kept.
    rows: whose products with the queries are, a multiple of GROUP.
  """

  queries: int
  rows: int


def free_memory(device: jax.Device) -> int:
  """The device's free memory in bytes; a CPU device has its share of the system's."""
  statistics = device.memory_stats() if device.platform != 'cpu' else None
  if statistics and 'bytes_limit' in statistics:
    return int(statistics['bytes_limit'] - statistics['bytes_in_use'])
  return int(psutil.virtual_memory().available // jax.local_device_count())


def cache_size() -> int:
  """The size of the CPU's last-level cache in bytes."""
  try:
    return os.sysconf('SC_LEVEL3_CACHE_SIZE') or USUAL_CACHE
  except (ValueError, OSError):
    return USUAL_CACHE


def choose(device: jax.Device, groups: int) -> BlockSizes:
  """The block sizes for a bank of that many groups on a device."""
  budget = free_memory(device) // BOUNDS_SHARE
  rows = ROWS_ON_ACCELERATOR
  most = MOST_QUERIES
  if device.platform == 'cpu':
    # The products of a block of rows are read again at once, for their minimum: from the cache.
    budget, rows = min(budget, BOUNDS_ON_CPU), GROUP
    most = min(most, cache_size() // 2 // (rows * 4))
  fitting = budget // (BOUNDS_COPIES * groups * 4)
  return BlockSizes(max(64, min(most, fitting // 64 * 64)), rows)
