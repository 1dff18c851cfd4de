"""The folder layout of MVTec AD, which many data sets share.

  <category>/train/good/<image>
  <category>/test/<type>/<image>                       optional; type 'good' is normal
  <category>/ground_truth/<type>/<stem>_mask.<suffix>  optional, for all or some of the test images

A mask may also bear its image's name without '_mask'.
"""

import collections
import dataclasses
import hashlib
import pathlib
import re

from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError

GOOD = 'good'


@dataclasses.dataclass(frozen=True)
class Item:
  """One image file of a category, and its mask file where there is one."""

  name: str
  defect: str
  image: pathlib.Path
  mask: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class Layout:
  """The image files of a category.

  Attributes:
    train: normal images, in natural order (2 before 10).
    test: images to score, by type, then in natural order.
    oddities: what was left out and why, one line each.
  """

  train: tuple[Item, ...]
  test: tuple[Item, ...]
  oddities: tuple[str, ...]


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
  for name in _folders(category / 'train'):
    if name != GOOD:
      oddities.append(f'{category / "train" / name}: ignored, only train/{GOOD} is trained on')
  test = _items(category, 'test', _folders(category / 'test'), oddities)
  oddities += _masks_without_image(category, test)
  return Layout(tuple(train), tuple(test), tuple(oddities))


def fingerprint(layout: Layout) -> str:
  """Changes whenever a file is added, removed, renamed, resized or written anew."""
  digest = hashlib.sha256()
  for item in layout.train + layout.test:
    digest.update(f'{item.name}\0{_state(item.image)}\0'.encode())
    if item.mask is not None:
      digest.update(f'{item.mask.name}\0{_state(item.mask)}\0'.encode())
  return digest.hexdigest()


def _state(path: pathlib.Path) -> str:
  try:
    stat = path.stat()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); check the file') from error
  return f'{stat.st_size} {stat.st_mtime_ns}'


def _listing(folder: pathlib.Path) -> list[pathlib.Path]:
  """Visible entries in natural order; none where the folder is missing."""
  if not folder.is_dir():
    return []
  try:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
  except OSError as error:
    raise UserError(f'{folder}: cannot be read ({error.strerror}); check it') from error
  return sorted(entries, key=lambda entry: natural_key(entry.name))


def _folders(folder: pathlib.Path) -> list[str]:
  return [entry.name for entry in _listing(folder) if entry.is_dir()]


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [p for p in _listing(folder) if p.suffix.lower() in images.SUFFIXES and p.is_file()]


def _items(category: pathlib.Path, split: str, types: list[str], oddities: list[str]) -> list[Item]:
  items = []
  for defect in types:
    folder = category / split / defect
    masks = _masks_by_stem(category / 'ground_truth' / defect) if split == 'test' else {}
    files = _image_files(folder)
    oddities += _left_out(folder, len(files))
    for path in files:
      mask = _mask_of(path, masks)
      items.append(Item(f'{split}/{defect}/{path.name}', defect, path, mask))
  oddities += _left_out(category / split, len(_folders(category / split)))
  return items


def _left_out(folder: pathlib.Path, used: int) -> list[str]:
  count = len(_listing(folder)) - used
  return [f'{folder}: {count} entries ignored that do not belong there'] if count else []


def _masks_by_stem(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  by_stem = collections.defaultdict(list)
  for path in _image_files(folder):
    by_stem[path.stem].append(path)
  return dict(by_stem)


def _mask_of(image: pathlib.Path, masks: dict[str, list[pathlib.Path]]) -> pathlib.Path | None:
  found = masks.get(f'{image.stem}_mask') or masks.get(image.stem) or []
  if len(found) > 1:
    raise UserError(f'{image}: has several masks, {found[0]} and {found[1]}; keep one')
  return found[0] if found else None


def _masks_without_image(category: pathlib.Path, test: list[Item]) -> list[str]:
  used = {item.mask for item in test}
  truth = category / 'ground_truth'
  return [
    f'{path}: ignored, no test image belongs to this mask'
    for defect in _folders(truth)
    for path in _image_files(truth / defect)
    if path not in used
  ]
