"""Test images that are copies of normal ones, which make figures look better than they are.

Copies have the same pixels, or nearly: they were compressed anew, or brought to another size. That
two photographs show the same part in the same place makes them no copies, so how near two images
are is measured beside what the set's own photographs are to each other.
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from patch_svdd_jax.data.dataset import Dataset

# An image is compared as so many grey levels a side. More would see what compression takes away.
SIDE = 32

# A copy is nearer than this share of the distance that a normal image usually has to the nearest
# other one. Measured on screw, cookie and three textures (docs/dirty_training_sets.md): copies of
# JPEG quality 75 or more and of half to one and a half times the size .09 at most, others .32.
SHARE = 0.2

# And never farther, where normal images have little in common: 1 - .95 of correlation.
FARTHEST = 0.05

# Normal images that say how near they usually are, at most, and images compared at a time.
ENOUGH = 512
TOGETHER = 64

# Pairs that a warning names.
SHOWN = 3


class Duplicate(NamedTuple):
  """The names of a test image and of the normal image, trained on or held out, that it copies."""

  test: str
  normal: str


def find(dataset: Dataset) -> list[Duplicate]:
  """Finds the test images that are copies of normal ones, each with the nearest one.

  d = 1 - r of two images, r the correlation of their grey levels beyond those of the mean image. A
  copy has d <= min(SHARE * median over normal images of d to the nearest other one, FARTHEST), or
  the same pixels.
  """
  splits = dataset.train, dataset.held_out
  names = [name for split in splits for name in split.names]
  if not names or not len(dataset.test):
    return []
  of_normal = np.concatenate([thumbnails(split.images) for split in splits if len(split)])
  of_test = thumbnails(dataset.test.images)
  mean = of_normal.mean(axis=0, keepdims=True)
  of_normal, of_test = directions(of_normal - mean), directions(of_test - mean)
  limit = min(SHARE * usual_distance(of_normal), FARTHEST)
  pixels = itertools.chain.from_iterable(split.images for split in splits)
  same = {digest(image): name for image, name in zip(pixels, names, strict=True)}
  found = []
  for first in range(0, len(of_test), TOGETHER):
    products = of_test[first : first + TOGETHER] @ of_normal.T
    for index, nearest in enumerate(products.argmax(axis=1), first):
      name = same.get(digest(dataset.test.images[index]))
      if name is None and 1 - products[index - first, nearest] <= limit:
        name = names[nearest]
      if name is not None:
        found.append(Duplicate(dataset.test.names[index], name))
  return found


def warn(found: Sequence[Duplicate]) -> str:
  """Describes the copies in one line."""
  names = ', '.join(f'{pair.test} = {pair.normal}' for pair in found[:SHOWN])
  more = ', ...' if len(found) > SHOWN else ''
  images = 'test image is a copy' if len(found) == 1 else 'test images are copies'
  return (
    f'{len(found)} {images} of normal images ({names}{more}): figures are better than they should '
    'be; remove one of each pair'
  )


def thumbnails(images: np.ndarray) -> np.ndarray:
  """Returns grey levels of SIDE x SIDE areas, f32[N, pixels], of images u8[N, H, W, 3]."""
  height, width = images.shape[1:3]
  size = min(SIDE, width), min(SIDE, height)
  small = np.empty((len(images), size[0] * size[1]), np.float32)
  for thumbnail, image in zip(small, images, strict=True):
    grey = Image.fromarray(image).convert('L').convert('F')
    thumbnail[:] = np.asarray(grey.resize(size, Image.Resampling.BOX)).ravel()
  return small


def directions(vectors: np.ndarray) -> np.ndarray:
  """Returns vectors f32[N, D] without their own means, of length 1; 0 where nothing is left."""
  vectors = vectors - vectors.mean(axis=1, keepdims=True)
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(norms > 0, norms, 1)


def usual_distance(vectors: np.ndarray) -> float:
  """Returns the median of 1 - r to the nearest other one of vectors f32[N, D]; 0 of one."""
  if len(vectors) < 2:
    return 0.0
  chosen = np.unique(np.linspace(0, len(vectors) - 1, ENOUGH).astype(int))
  nearest = []
  for first in range(0, len(chosen), TOGETHER):
    part = chosen[first : first + TOGETHER]
    products = vectors[part] @ vectors.T
    products[np.arange(len(part)), part] = -1
    nearest.append(1 - products.max(axis=1))
  return float(np.median(np.concatenate(nearest)))


def digest(image: np.ndarray) -> bytes:
  """Returns a digest that images of equal pixels have in common, and others have not."""
  return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
