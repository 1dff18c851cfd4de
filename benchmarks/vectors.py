"""What the search is measured on: queries and memory banks of two kinds.

Isotropic normal vectors have no structure that a search could use, and in many dimensions nearly
one distance: the worst case. Embedded patches are what a detector searches.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from PIL import Image

from patch_svdd_jax.configs import default
from patch_svdd_jax.models import architecture, embedding, encoder, geometry, mean_image
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.system.batching import Progress
from patch_svdd_jax.system.sharding import replicate

# (queries f32[Q, D], rows f32[N, D])
Vectors = tuple[np.ndarray, np.ndarray]
# Pixels of the photograph that become an image: up to the width of the strips they are cut from.
SMALLEST_CROP, LARGEST_CROP = 96, 160


def gaussian(queries: int, rows: int, dim: int, progress: Progress = iter) -> Vectors:
  """Returns independent standard normal coordinates."""
  del progress  # It is a matter of seconds.
  for_queries, for_rows = np.random.default_rng(0).spawn(2)
  return (
    for_queries.standard_normal((queries, dim), dtype=np.float32),
    for_rows.standard_normal((rows, dim), dtype=np.float32),
  )


def embeddings(queries: int, rows: int, dim: int, progress: Progress = iter) -> Vectors:
  """Returns patches of the default config's texture, embedded by its encoder, untrained.

  Images are cut from the photograph at random: those of the bank from the strips of the training
  images, those of the queries from the strip of the test images. Their size, place and orientation
  differ, so that no patch occurs twice. The smallest scale is embedded, in the images' order, as a
  detector does: the patches of an image lie beside each other. The bank's mean is subtracted, which
  leaves the distances as they are: they are so small beside it that the peers, which do not
  subtract it, would find none of their digits.
  """
  from patch_svdd_jax.data import textures  # imports TFDS, which takes a second

  config = default.get_config()
  config.encoder.embed_dim = dim
  scale = min(config.encoder.scales)
  stride = strides_of(config)[scale]
  size = config.data.image_size
  patches = geometry.patch_count(size, scale, stride)
  photograph = textures.photographs()[config.data.category]
  left, right = textures.TEST_COLUMNS
  for_queries, for_rows = np.random.default_rng(config.seed).spawn(2)
  training_strips = (photograph[:, :left], photograph[:, right:])
  bank_images = random_images(for_rows, training_strips, -(-rows // patches), size)
  query_images = random_images(
    for_queries, (photograph[:, left:right],), -(-queries // patches), size
  )
  images = np.concatenate([query_images, bank_images])
  params, mean = replicate(
    (
      encoder.init_encoder(config),
      jnp.asarray(mean_image.training_mean(bank_images, config.train.mean)),
    )
  )
  found = embedding.embed(
    architecture.from_config(config.encoder),
    params,
    mean,
    images,
    {scale: stride},
    batch_size=config.score.batch_size,
    progress=progress,
  )[scale]
  vectors = np.asarray(found.rows).reshape(-1, dim)
  first = len(query_images) * patches
  bank = vectors[first : first + rows]
  centre = bank.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
  return vectors[:queries] - centre, bank - centre


def random_images(
  rng: np.random.Generator, strips: tuple[np.ndarray, ...], count: int, size: tuple[int, int]
) -> np.ndarray:
  """Draws random squares of grey strips u8[H, W], turned, mirrored, resized: u8[n, *size, 3]."""
  images = np.empty((count, *size, 3), np.uint8)
  for image in images:
    strip = strips[rng.integers(len(strips))]
    side = rng.integers(SMALLEST_CROP, LARGEST_CROP, endpoint=True)
    top, left = (rng.integers(extent - side, endpoint=True) for extent in strip.shape)
    square = np.rot90(strip[top : top + side, left : left + side], int(rng.integers(4)))
    square = square[:, :: rng.choice((-1, 1))]
    resized = Image.fromarray(square).resize(size[::-1], Image.Resampling.BICUBIC)
    image[:] = np.asarray(resized)[..., None]
  return images


KINDS: dict[str, Callable[..., Vectors]] = {'gaussian': gaussian, 'embeddings': embeddings}
