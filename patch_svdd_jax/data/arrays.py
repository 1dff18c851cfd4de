"""Images that are arrays already: those of a program, or of files that were just decoded."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import appearance, image_size, images, region
from patch_svdd_jax.data.dataset import Dataset, Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.digests import digest_parts

# What an image is, for errors.
WANTED = 'uint8[height, width, 3] in RGB order, or uint8[height, width] in grey'


def listed(images: Any) -> list[np.ndarray]:
  """Returns images one by one.

  Args:
    images: u8[N, h, w, 3] or u8[N, h, w, 1], or an iterable of images, each as of `to_rgb`. An
      array of fewer axes may be one image as well as several, and is refused.

  Raises:
    UserError: they are something else, or there are none.
  """
  if is_array(images) and len(images.shape) != 4 and not is_list(images):
    raise UserError(
      f'{kind(images)} may be one image, or several: give image[None] for one in colour, [image] '
      f'for one in grey, list(images) for several; each is {WANTED}'
    )
  if isinstance(images, str | bytes | Mapping) or not isinstance(images, Iterable):
    raise UserError(f'images are {kind(images)}: give an array or a list of {WANTED}')
  given = list(plain(images, 'images') if is_array(images) else images)
  if not given:
    raise UserError(f'no images: give at least one, {WANTED}')
  return given


def is_array(value: Any) -> bool:
  """Returns whether a value is an array of any library: it has a dtype and a shape."""
  return hasattr(value, 'dtype') and hasattr(value, 'shape')


def is_list(array: Any) -> bool:
  """Returns whether it is an array of Python objects in a row, as of images of several sizes."""
  return array.dtype == object and len(array.shape) == 1


def kind(value: Any) -> str:
  """Returns what a value is, for errors: 'uint8[40, 48, 3]', 'a list'."""
  if is_array(value):
    return f'{str(value.dtype).removeprefix("torch.")}{list(value.shape)}'
  return f'of type {type(value).__name__}'


def plain(array: Any, name: str) -> np.ndarray:
  """Returns an array of another library as one of numpy's.

  Raises:
    UserError: it cannot be one, as it lies on a device or has a gradient; names it.
  """
  try:
    return np.asarray(array)
  # Whatever the library raises.
  except Exception as error:
    raise UserError(f'{name}: {kind(array)} is no array of numpy: {error}') from error


def to_rgb(image: np.ndarray, name: str) -> np.ndarray:
  """Returns an image u8[h, w, 3], or a grey one u8[h, w] or u8[h, w, 1], as u8[h, w, 3].

  Raises:
    UserError: it is something else; names it.
  """
  pixels = plain(image, name) if is_array(image) else np.zeros(0)
  grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
  if pixels.dtype != np.uint8 or not pixels.size or not (grey or pixels.shape[2:] == (3,)):
    raise UserError(f'{name} is {kind(image)}: give {WANTED}{hint(pixels)}')
  return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2) if grey else pixels


def hint(pixels: np.ndarray) -> str:
  """Returns how to make an image of what is nearly one; nothing where that is not known."""
  if pixels.dtype == bool:
    return ', as image * np.uint8(255)'
  if pixels.dtype.kind == 'f' and pixels.size:
    return ', as np.uint8(np.round(image * 255)) where it lies in [0, 1]'
  if pixels.ndim == 3 and pixels.shape[2] == 4:
    return ', as image[..., :3] without transparency'
  if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
    return ', as image.transpose(1, 2, 0) where channels come first'
  return ''


def resized(
  given: Iterable[np.ndarray],
  config: ml_collections.ConfigDict,
  names: Sequence[str],
  digests: Sequence[str] | None = None,
) -> Split:
  """Returns images of any size as a split without labels, in the light they were taken in.

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


def named(names: Iterable[object] | None, count: int) -> list[str]:
  """Returns the names of so many images, their numbers where they have none.

  Raises:
    UserError: there are more or fewer names.
  """
  if names is None:
    return numbered(count)
  if isinstance(names, str | bytes) or not isinstance(names, Iterable):
    raise UserError(f'names are {kind(names)}: give a list of one for each image')
  texts = [str(name) for name in names]
  if len(texts) != count:
    raise UserError(f'{len(texts)} names for {count} images: give one for each')
  return texts


def numbered(count: int) -> list[str]:
  """Returns names for images that have none."""
  return [f'image {index}' for index in range(count)]


def lit(
  split: Split,
  config: ml_collections.ConfigDict,
  regions: object = None,
  fixed: np.ndarray | None = None,
) -> Split:
  """Returns images with their regions, if they have some, in the light that config asks for.

  Args:
    split: of images that are resized.
    config: `config.data`.
    regions: of interest, see `region.given`; None: `fixed`.
    fixed: bool[H, W], of a detector, for all images; None: all of all images.

  Raises:
    UserError: the regions do not fit.
  """
  found = None if fixed is None else np.broadcast_to(fixed, (len(split), *fixed.shape))
  if regions is not None:
    found = region.given(regions, split.sizes, split.images.shape[1:3], split.names)
  return data.light(dataclasses.replace(split, regions=found), config)


def dataset(
  given: Sequence[np.ndarray], config: ml_collections.ConfigDict, regions: object = None
) -> Dataset:
  """Returns normal images as a data set without test images; see `resized` for errors.

  Args:
    given: the images.
    config: `config.data`.
    regions: of interest, see `region.given`; None for all of all images.

  Raises:
    UserError: `config.data` asks for what cannot be.
  """
  names = numbered(len(given))
  if not all(config.image_size):
    own = [to_rgb(image, name).shape[:2] for image, name in zip(given, names, strict=True)]
    config = config.copy_and_resolve_references()
    config.image_size = image_size.resolve(config.image_size, np.array(own))
  normal = lit(resized(given, config, names), config, regions)
  return data.assemble('arrays', normal, normal.take(np.arange(0)), config)
