"""How much the search holds in memory at a time, from the devices' free memory."""

from typing import NamedTuple

import jax
import psutil

from patch_svdd_jax.search.screening import GROUP

# Of the free memory, what the bounds and their copies may take: a share, and on a CPU so many bytes
# at most, as glibc takes arrays of more than 32 MiB from the system anew every time.
BOUNDS_SHARE = 8
BOUNDS_ON_CPU = 64 * 2**20
BOUNDS_COPIES = 2

# Queries and rows of one product on an accelerator: enough to keep its matrix units busy.
MOST_QUERIES = 4096
ROWS_ON_ACCELERATOR = 8192

# Products that a CPU computes at a time, and of how many rows at least and at most.
PRODUCTS_ON_CPU = 2**21
ROWS_ON_CPU = (512, 4096)

# Up to so many rows, those of a group on a CPU: large groups cost each query more, small ones each
# row.
GROUPS_ON_CPU = ((2048, 8), (16384, 16), (262144, 32))
LARGEST_GROUP_ON_CPU = 64

# Of a device's free memory, what a bank may take; a larger one stays on the host.
BANK_SHARE = 0.7


class BlockSizes(NamedTuple):
  """What is in memory at a time.

  Attributes:
    queries: whose bounds to all groups of rows are kept.
    rows: whose products with the queries are in memory, a multiple of GROUP.
  """

  queries: int
  rows: int


def free_memory(device: jax.Device) -> int:
  """Returns the device's free memory in bytes; a CPU device has its share of the system's."""
  statistics = device.memory_stats() if device.platform != 'cpu' else None
  if statistics and 'bytes_limit' in statistics:
    return int(statistics['bytes_limit'] - statistics['bytes_in_use'])
  return int(psutil.virtual_memory().available // jax.local_device_count())


def rows_of_group(platform: str, rows: int) -> int:
  """Returns how many rows a group has where a device has so many."""
  if platform != 'cpu':
    return GROUP
  fitting = (group for most, group in GROUPS_ON_CPU if rows <= most)
  return next(fitting, LARGEST_GROUP_ON_CPU)


def choose(device: jax.Device, groups: int, queries: int) -> BlockSizes:
  """Returns the block sizes for so many queries and a bank of so many groups on a device."""
  budget = free_memory(device) // BOUNDS_SHARE
  if device.platform == 'cpu':
    budget = min(budget, BOUNDS_ON_CPU)
  fitting = max(64, budget // (BOUNDS_COPIES * groups * 4) // 64 * 64)
  block = min(MOST_QUERIES, fitting)
  if device.platform != 'cpu':
    return BlockSizes(block, ROWS_ON_ACCELERATOR)
  # The fewer queries there are, the more rows make a product that is worth its call.
  together = PRODUCTS_ON_CPU // min(queries, block)
  rows = ROWS_ON_CPU[0]
  while rows < ROWS_ON_CPU[1] and 2 * rows <= together:
    rows *= 2
  return BlockSizes(block, rows)
