"""Images that are arrays already: those of a program, or of files that were just decoded."""

from collections.abc import Iterable, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import appearance, image_size, images
from patch_svdd_jax.data.dataset import Dataset, Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.digests import digest_parts


def to_rgb(image: np.ndarray, name: str) -> np.ndarray:
  """An image u8[h, w, 3], or a grey one u8[h, w] or u8[h, w, 1], as u8[h, w, 3].

  Raises:
    UserError: it is something else; names it.
  """
  image = np.asarray(image)
  grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
  if image.dtype != np.uint8 or not image.size or not (grey or image.shape[2:] == (3,)):
    raise UserError(
      f'{name} is {image.dtype}{list(image.shape)}: give uint8[height, width, 3] in RGB order, or '
      'uint8[height, width] in grey'
    )
  return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if grey else image


def resized(
  given: Iterable[np.ndarray],
  config: ml_collections.ConfigDict,
  names: Sequence[str],
  digests: Sequence[str] | None = None,
) -> Split:
  """Images of any size as a split of which nothing is known, in the light they were taken in.

  Args:
    given: u8[h, w, 3], or u8[h, w] in grey, each.
    config: `config.data`, whose image_size and resize count.
    names: of the images, for errors and reports.
    digests: of their files; None where there are none, and the arrays have their own.

  Raises:
    UserError: one is no such array; names it.
  """
  size = (config.image_size[0], config.image_size[1])
  count = len(names)
  pixels = np.zeros((count, *size, 3), np.uint8)
  sizes = np.zeros((count, 2), np.int64)
  looks = np.zeros((count, len(appearance.NAMES)), np.float32)
  contents = []
  for index, (image, name) in enumerate(zip(given, names, strict=True)):
    rgb = to_rgb(image, name)
    sizes[index] = rgb.shape[:2]
    if digests is None:
      contents.append(digest_parts(str(rgb.shape).encode(), rgb.tobytes()))
    pixels[index] = images.resize_image(rgb, size, config.resize)
    looks[index] = appearance.image_statistics(pixels[index])
  return Split(
    images=pixels,
    masks=np.zeros((count, *size), bool),
    has_mask=np.zeros(count, bool),
    labels=np.zeros(count, bool),
    defects=('',) * count,
    names=tuple(names),
    sizes=sizes,
    appearance=looks,
    digests=tuple(contents if digests is None else digests),
  )


def numbered(count: int) -> list[str]:
  """Names of images that have none."""
  return [f'image {index}' for index in range(count)]


def dataset(given: Sequence[np.ndarray], config: ml_collections.ConfigDict) -> Dataset:
  """Normal images as a data set without test images; arguments and errors as of `resized`.

  Raises:
    UserError: there are none, or `config.data` asks for what cannot be.
  """
  if not len(given):
    raise UserError('no images: give at least one normal image, uint8[height, width, 3]')
  names = numbered(len(given))
  if not all(config.image_size):
    own = [to_rgb(image, name).shape[:2] for image, name in zip(given, names, strict=True)]
    config = config.copy_and_resolve_references()
    config.image_size = image_size.resolve(config.image_size, np.array(own))
  normal = resized(given, config, names)
  return data.assemble('arrays', normal, normal.take(np.arange(0)), config)
