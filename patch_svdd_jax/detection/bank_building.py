"""From normal images to memory banks: which embeddings are kept, and where they lie."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from patch_svdd_jax.detection import outliers, region_of_interest
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, features, geometry
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.embedding import Embeddings
from patch_svdd_jax.models.encoder import Params
from patch_svdd_jax.search import block_sizes, coreset, memory_bank
from patch_svdd_jax.search.memory_bank import HostBank, MemoryBank
from patch_svdd_jax.search.screening import GROUP, Screen
from patch_svdd_jax.system.batching import Progress

Bank = MemoryBank | HostBank

# Copies of a bank on the devices while it is made: embeddings, rows, and their screening vectors.
COPIES = 3


class Built(NamedTuple):
  """The memory banks of some images.

  Attributes:
    banks: of each receptive field.
    dropped: f64[N], the share of each image's patches, of all receptive fields, that are in no bank
      because they are outlying; None where none were to be dropped.
  """

  banks: dict[int, Bank]
  dropped: np.ndarray | None = None


def build(
  config: ml_collections.ConfigDict,
  params: Params,
  mean: jax.Array,
  images: np.ndarray,
  strides: Mapping[int, int],
  progress: Progress = iter,
  regions: np.ndarray | None = None,
) -> Built:
  """Embeds the patches of normal images that count into the memory bank of each receptive field.

  Args:
    config: the whole config.
    params: the encoder's, with the projection where there is one, replicated.
    mean: f32[H, W, 3] or f32[1, 1, 3], replicated.
    images: u8[N, H, W, 3].
    strides: of each receptive field, in pixels.
    progress: wraps the iterables of batches, of what finds outliers, and of the rows that are
      chosen.
    regions: bool[N, H, W], see `region_of_interest`; None: all patches count.

  Raises:
    UserError: config.score asks for what there is not.
  """
  check_neighbours(config, len(images), images.shape[1:3], regions)
  arch = architecture.from_config(config.encoder)
  options = {
    'batch_size': config.score.batch_size,
    'tile': config.score.tile,
    'features': features.from_config(config.score),
    'progress': progress,
  }
  if (
    regions is not None
    or config.score.compare == 'centre'
    or config.score.outliers
    or lies_on_host(config, images.shape, strides)
  ):
    counted = region_of_interest.counted_patches(config, regions)
    on_host = embedding.embed_to_host(
      arch, params, mean, images, strides, **options, counted=counted
    )
    counts = rows_of_images(on_host, len(images), counted)
    reduced = {
      k: reduce_rows(rows, len(images), config, progress, counts[k]) for k, rows in on_host.items()
    }
    inliers = [each.inliers for each in reduced.values()]
    return Built(
      {k: place(each.rows) for k, each in reduced.items()},
      dropped_shares(inliers, list(counts.values())) if config.score.outliers else None,
    )
  embeddings = embedding.embed(arch, params, mean, images, strides, **options)
  banks: dict[int, Bank] = {}
  for k in list(embeddings):
    # Popped: while one scale is arranged, the other scales' raw embeddings are the only copies.
    banks[k] = arrange(embeddings.pop(k), config, progress)
  return Built(banks)


def lies_on_host(
  config: ml_collections.ConfigDict, shape: tuple[int, ...], strides: Mapping[int, int]
) -> bool:
  """Returns whether banks of images [N, H, W, 3] do not fit on the devices."""
  patches = sum(geometry.patch_count(shape[1:3], k, stride) for k, stride in strides.items())
  needed = COPIES * shape[0] * patches * features.dim_of(config) * 4
  free = (
    sum(block_sizes.free_memory(device) for device in jax.local_devices()) * jax.process_count()
  )
  return bool(needed > block_sizes.BANK_SHARE * free)


def arrange(embeddings: Embeddings, config: ml_collections.ConfigDict, progress: Progress) -> Bank:
  """Returns the bank of one scale's embeddings, or of those that are kept, on the devices."""
  if config.score.coreset == 1:
    return from_embeddings(embeddings)
  devices, images, patches, dim = embeddings.rows.shape
  valid = np.arange(devices * images * patches) < embeddings.images * patches
  kept = coreset.select(
    embeddings.rows,
    rows_kept(int(valid.sum()), config),
    seed=config.seed,
    valid=valid,
    progress=progress,
  )
  rows = embeddings.rows.reshape(-1, dim)[jnp.asarray(np.sort(kept))]
  return memory_bank.from_rows(np.asarray(rows))


def from_embeddings(embeddings: Embeddings) -> MemoryBank:
  """Returns the bank of all embeddings of one scale, on the devices that made them."""
  devices, images, patches, dim = embeddings.rows.shape
  rows = embeddings.rows.reshape(devices, images * patches, dim)
  return memory_bank.from_device_rows(rows, embeddings.images * patches)


def rows_of_images(
  rows: Mapping[int, np.ndarray], images: int, counted: Mapping[int, np.ndarray] | None
) -> dict[int, np.ndarray]:
  """Returns how many of the rows of each scale are of each image, i64[images].

  Args:
    rows: f32[N, D] of each scale, image after image.
    images: how many there are.
    counted: which patches are among the rows, as of `region_of_interest`; None: all are.
  """
  if counted is None:
    return {k: np.full(images, len(of_scale) // images) for k, of_scale in rows.items()}
  return {k: region_of_interest.rows_of_images(counted[k]) for k in rows}


def check_neighbours(
  config: ml_collections.ConfigDict,
  images: int,
  size: tuple[int, int],
  regions: np.ndarray | None = None,
) -> None:
  """Refuses to look for more neighbours than a memory bank will have rows.

  Args:
    config: the whole config.
    images: how many normal ones the bank is fitted to.
    size: (height, width) of all.
    regions: bool[N, height, width] of all that there are, N >= images; None: all patches count.

  Raises:
    UserError: names the key and the bank.
  """
  counted = region_of_interest.counted_patches(config, regions)
  for k, stride in strides_of(config).items():
    patches = images * geometry.patch_count(size, k, stride)
    if counted is not None:
      # Whichever they are, they have no fewer.
      patches = int(np.sort(region_of_interest.rows_of_images(counted[k]))[:images].sum())
      if not patches:
        raise UserError(
          f'no patch of {k} pixels has {config.data.region_share:g} of its pixels in the region of '
          'its image: enlarge the region, lower config.data.region_share, or use smaller '
          'config.encoder.scales'
        )
    kept = patches - (round(config.score.outliers * patches) if images > 1 else 0)
    rows = 1 if config.score.compare == 'centre' else rows_kept(kept, config)
    if config.score.neighbours > rows:
      raise UserError(
        f'config.score.neighbours={config.score.neighbours}: the memory bank of K={k} has {rows:,} '
        f'rows where it is fitted to {images:,} images: give at most {rows}'
      )


class Reduced(NamedTuple):
  """What is kept of some rows: the rows f32[M, D], and of all bool[N], which are no outliers."""

  rows: np.ndarray
  inliers: np.ndarray


def reduce_rows(
  rows: np.ndarray,
  images: int,
  config: ml_collections.ConfigDict,
  progress: Progress,
  counts: np.ndarray | None = None,
) -> Reduced:
  """Returns the rows that are kept.

  Args:
    rows: f32[N, D], on the host, image after image.
    images: how many there are.
    config: the whole config.
    progress: wraps the iterables of what finds outliers, and of the rows that are chosen.
    counts: i64[images], how many rows each has; None: all have as many.
  """
  if counts is None:
    counts = np.full(images, len(rows) // images)
  inliers = outliers.inliers(rows, counts, config.score.outliers, place, progress)
  if not inliers.all():
    rows = rows[inliers]
  if config.score.compare == 'centre':
    rows = rows.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
  elif config.score.coreset < 1:
    count = rows_kept(len(rows), config)
    kept = coreset.select(
      rows, count, seed=config.seed, at_once=chunk_size(rows.shape[1]), progress=progress
    )
    rows = rows[np.sort(kept)]
  return Reduced(rows, inliers)


def dropped_shares(inliers: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the share of each image's patches that are outlying, f64[N]; 0 of one without any.

  Args:
    inliers: of each scale, bool[M] of its rows.
    counts: of each scale, i64[N], how many rows each image has.
  """
  image = [np.repeat(np.arange(len(each)), each) for each in counts]
  kept = np.bincount(
    np.concatenate(image), np.concatenate(inliers).astype(np.float64), len(counts[0])
  )
  total = np.sum(counts, axis=0)
  shares: np.ndarray = 1 - np.divide(kept, total, out=np.ones(len(total)), where=total > 0)
  return shares


def place(rows: np.ndarray, screen: Screen | None = None) -> Bank:
  """Returns the bank of rows f32[N, D]: on the devices, or on the host where it does not fit there.

  With the `screen` of another bank of such rows, it is searched by the program of that one.
  """
  chunk = chunk_size(rows.shape[1])
  if len(rows) > chunk:
    return memory_bank.on_host(rows, chunk, screen=screen)
  return memory_bank.from_rows(rows, screen=screen)


def append(bank: Bank, rows: np.ndarray) -> Bank:
  """Returns a bank with further rows f32[N, D] behind its own, screened alike."""
  if isinstance(bank, MemoryBank) and not bank.layout.sharded:
    return memory_bank.append(bank, rows)
  return place(np.concatenate([memory_bank.to_rows(bank), rows]), bank.screen)


def chunk_size(dim: int) -> int:
  """Returns rows of which two chunks and their copies fit on the devices."""
  free = min(block_sizes.free_memory(device) for device in jax.local_devices())
  each = int(block_sizes.BANK_SHARE * free) // (2 * COPIES * dim * 4)
  return max(GROUP, each // GROUP * GROUP) * jax.device_count()


def rows_kept(count: int, config: ml_collections.ConfigDict) -> int:
  """Returns how many of `count` rows are kept."""
  return int(max(1, round(count * config.score.coreset)))
