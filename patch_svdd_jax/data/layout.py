"""The folder layout of MVTec AD, which many data sets share.

  <category>/train/good/<image>
  <category>/test/<type>/<image>                       optional; type 'good' is normal
  <category>/ground_truth/<type>/<stem>_mask.<suffix>  optional, for all or some of the test images

A mask may also bear its image's name without '_mask'.
"""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Callable

from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digest_cache

GOOD = 'good'
FindMasks = Callable[[pathlib.Path], tuple[pathlib.Path, ...]]  # the masks of an image file


def no_masks(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Of images that are normal, or whose masks are not known."""
  del image
  return ()


@dataclasses.dataclass(frozen=True)
class Item:
  """One image file of a category, and its mask files, whose union is what is anomalous."""

  name: str
  defect: str
  image: pathlib.Path
  masks: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
  """The image files of a category.

  Attributes:
    train: normal images, in natural order (2 before 10).
    test: images to score, by type, then in natural order.
    validation: other normal images, which some data sets name.
    oddities: what was left out and why, one line each.
  """

  train: tuple[Item, ...]
  test: tuple[Item, ...]
  validation: tuple[Item, ...] = ()
  oddities: tuple[str, ...] = ()


def natural_key(name: str) -> tuple[list[int | str], str]:
  """Sorts 'a2' before 'a10'; names that differ only in leading zeros sort by their characters."""
  parts = re.split(r'(\d+)', name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def scan(category: pathlib.Path) -> Layout:
  """Finds the images and masks of a category.

  Args:
    category: folder that holds train/good.

  Returns:
    The Layout, in an order that depends on the names alone.

  Raises:
    UserError: where the folder or train/good is missing or empty, or an image has several masks.
  """
  oddities: list[str] = []
  train = _items(category, 'train', [GOOD], oddities)
  if not train:
    raise UserError(
      f'{category / "train" / GOOD}: has no images; '
      f'put normal images there ({", ".join(images.SUFFIXES)})'
    )
  oddities += [
    f'{category / "train" / name}: ignored, only train/{GOOD} is trained on'
    for name in folders(category / 'train')
    if name != GOOD
  ]
  test = _items(category, 'test', folders(category / 'test'), oddities)
  oddities += _masks_without_image(category, test)
  return Layout(tuple(train), tuple(test), oddities=tuple(oddities))


def fingerprint(layout: Layout) -> str:
  """Returns a digest of all images: their content, masks, names, types and splits, in order.

  Where the files lie, and when they were written, is no part of it.

  Raises:
    UserError: a file cannot be read.
  """
  splits = {'train': layout.train, 'validation': layout.validation, 'test': layout.test}
  found = [item for items in splits.values() for item in items]
  paths = [path for item in found for path in (item.image, *item.masks)]
  digests = iter(digest_cache.digest_files(paths))
  total = hashlib.sha256()
  for split, items in splits.items():
    for item in items:
      image, *masks = itertools.islice(digests, 1 + len(item.masks))
      total.update(f'{(split, item.name, item.defect, image, *masks)!a}\n'.encode())
  return total.hexdigest()


def _listing(folder: pathlib.Path) -> list[pathlib.Path]:
  """Visible entries in natural order; none where the folder is missing."""
  if not folder.is_dir():
    return []
  try:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
  except OSError as error:
    raise UserError(f'{folder}: cannot be read ({error.strerror}); check it') from error
  return sorted(entries, key=lambda entry: natural_key(entry.name))


def folders(folder: pathlib.Path) -> list[str]:
  """The names of its sub-folders, in natural order; none where it is missing."""
  return [entry.name for entry in _listing(folder) if entry.is_dir()]


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Its image files, in natural order; none where it is missing."""
  return [p for p in _listing(folder) if p.suffix.lower() in images.SUFFIXES and p.is_file()]


def items(
  category: pathlib.Path, place: str, defect: str = GOOD, masks: FindMasks = no_masks
) -> tuple[Item, ...]:
  """The images of a sub-folder of a category, such as 'test/scratch', all of one type."""
  return tuple(
    Item(f'{place}/{path.name}', defect, path, masks(path))
    for path in image_files(category / place)
  )


def masks_in(folder: pathlib.Path) -> FindMasks:
  """Finds the mask of an image by its name: <stem>_mask or <stem>, with any suffix.

  Raises:
    UserError: when it is called, where an image has several.
  """
  by_stem = collections.defaultdict(list)
  for path in image_files(folder):
    by_stem[path.stem].append(path)

  def find(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
    found = by_stem.get(f'{image.stem}_mask') or by_stem.get(image.stem) or []
    if len(found) > 1:
      raise UserError(f'{image}: has several masks, {found[0]} and {found[1]}; keep one')
    return tuple(found)

  return find


def _items(category: pathlib.Path, split: str, types: list[str], oddities: list[str]) -> list[Item]:
  found: list[Item] = []
  for defect in types:
    masks = masks_in(category / 'ground_truth' / defect) if split == 'test' else no_masks
    of_type = items(category, f'{split}/{defect}', defect, masks)
    oddities += _left_out(category / split / defect, len(of_type))
    found += of_type
  oddities += _left_out(category / split, len(folders(category / split)))
  return found


def _left_out(folder: pathlib.Path, used: int) -> list[str]:
  count = len(_listing(folder)) - used
  return [f'{folder}: {count} entries ignored that do not belong there'] if count else []


def _masks_without_image(category: pathlib.Path, test: list[Item]) -> list[str]:
  used = {mask for item in test for mask in item.masks}
  truth = category / 'ground_truth'
  return [
    f'{path}: ignored, no test image belongs to this mask'
    for defect in folders(truth)
    for path in image_files(truth / defect)
    if path not in used
  ]
