"""The folder layout of MVTec AD, which many data sets share.

  <category>/train/good/<image>
  <category>/test/<type>/<image>                       optional; type 'good' is normal
  <category>/ground_truth/<type>/<stem>_mask.<suffix>  optional, for all or some of the test images

Its rules, which docs/datasets.md gives to users:
  - Names of folders count as `folder_names` says; one that is spelt as above comes first.
  - A mask bears its image's name, with '_mask', '_gt' or neither; or all files of a folder of the
    image's name are its masks, as in MVTec LOCO AD, whose union counts.
  - An image that has several masks otherwise cannot be used, nor one that is the mask of another
    image beside it.
  - Whatever is not read is found by `passed_over`, which goes through all files there are.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator

from patch_svdd_jax.data import images, masks, passed_over, report
from patch_svdd_jax.data.folder_names import (
  GOOD,
  TRUTH,
  TRUTH_NAMES,
  meaning,
  means_good,
  means_truth,
  resembles_good,
)
from patch_svdd_jax.data.report import Case, Finding
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digest_cache

FindMasks = Callable[[pathlib.Path], tuple[pathlib.Path, ...]]  # the masks of an image file


def no_masks(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Finds none: of images that are normal, or whose masks are not known."""
  del image
  return ()


@dataclasses.dataclass(frozen=True)
class Item:
  """One image file of a category, and its mask files, whose union is what is anomalous."""

  name: str
  defect: str
  image: pathlib.Path
  masks: tuple[pathlib.Path, ...] = ()
  problem: str = ''  # why it cannot be used, which shows in the names alone


@dataclasses.dataclass(frozen=True)
class Layout:
  """The image files of a category.

  Attributes:
    train: normal images, in natural order (2 before 10).
    test: images to score, by type, then in natural order.
    validation: other normal images, which some data sets name.
    findings: what the names of folders and files show, and all that is not read.
    form: what a set of one's own was recognised as, in words; '' of published ones.
  """

  train: tuple[Item, ...]
  test: tuple[Item, ...]
  validation: tuple[Item, ...] = ()
  findings: tuple[Finding, ...] = ()
  form: str = ''


def folder_named(folder: pathlib.Path, name: str, also: Collection[str] = ()) -> str | None:
  """Returns the sub-folder of a name, as it is spelt there; exactly that name comes first.

  Args:
    folder: where to look.
    name: of the layout.
    also: other names that mean it, the first of which is preferred.
  """
  present = folders(folder)
  if name in present:
    return name
  for wanted in (meaning(name), *also):
    for found in present:
      if meaning(found) == wanted:
        return found
  return None


def natural_key(name: str) -> tuple[list[int | str], str]:
  """Sorts 'a2' before 'a10'; names that differ only in leading zeros sort by their characters."""
  parts = re.split(r'(\d+)', name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def normal_folders(category: pathlib.Path) -> list[str]:
  """Returns the sub-folders of train whose name means good, as 'train/good'."""
  split = folder_named(category, 'train')
  return [place for place in _places(category, split) if means_good(_type(place))]


def _places(category: pathlib.Path, split: str | None) -> list[str]:
  """Returns the sub-folders of train or test, as 'test/scratch'."""
  return [f'{split}/{name}' for name in folders(category / split)] if split else []


def _type(place: str) -> str:
  return place.rpartition('/')[2]


def scan(category: pathlib.Path) -> Layout:
  """Finds the images and masks of a category, and all that is odd about their names.

  Args:
    category: folder that holds train/good.

  Returns:
    The Layout, in an order that depends on the names alone.

  Raises:
    UserError: a folder cannot be read.
  """
  test_folder = folder_named(category, 'test')
  normal = normal_folders(category)
  # A folder of masks among the types of defect is none of them.
  types = [place for place in _places(category, test_folder) if not means_truth(_type(place))]
  tree = passed_over.Tree(
    category,
    train=folder_named(category, 'train'),
    test=test_folder,
    truth=folder_named(category, TRUTH, TRUTH_NAMES),
    types=(*normal, *types),
  )
  train = [item for place in normal for item in beside(items(category, place))]
  test = [item for place in types for item in _test_items(tree, place)]
  used = {path for item in (*train, *test) for path in (item.image, *item.masks)}
  odd = [
    *([] if train else [_no_training_images()]),
    *_odd_names(tree, {item.name.rpartition('/')[0] for item in (*train, *test)}),
    *shared_masks(category, test),
    *passed_over.find(tree, used),
  ]
  return Layout(tuple(train), tuple(test), findings=report.findings(odd))


def _test_items(tree: passed_over.Tree, place: str) -> list[Item]:
  name = _type(place)
  find: FindMasks = no_masks
  if tree.truth and (own := folder_named(tree.category / tree.truth, name)):
    find = masks_in(tree.category / tree.truth / own)
  return [*beside(items(tree.category, place, GOOD if means_good(name) else name, find))]


def _no_training_images() -> tuple[str, Case]:
  text = f'train/{GOOD}: has no images; put normal images there ({", ".join(images.SUFFIXES)})'
  return 'no_training_images', Case(f'train/{GOOD}', text)


def _odd_names(tree: passed_over.Tree, filled: Collection[str]) -> Iterator[tuple[str, Case]]:
  """Yields folders that are not spelt as in the layout, or may not mean what they say."""
  for place in tree.types:
    name = _type(place)
    if means_good(name) and name != GOOD:
      yield 'good_by_another_name', Case(place)
    if resembles_good(name):
      yield 'resembles_good', Case(place)
    if place not in filled:
      yield 'no_images', Case(place)
  if tree.truth not in (None, TRUTH):
    yield 'masks_by_another_name', Case(str(tree.truth))


def beside(found: Collection[Item]) -> Iterator[Item]:
  """Yields the items of a folder; those that are masks of others beside them cannot be used."""
  stems = {item.image.stem for item in found}
  for item in found:
    own = masks.stem_of_image(item.image.stem)
    if own != item.image.stem and own in stems:
      text = (
        f'{item.image}: looks like the mask of an image beside it; masks belong into {TRUTH}/TYPE'
      )
      item = dataclasses.replace(item, problem=text)
    yield item


def shared_masks(category: pathlib.Path, test: Iterable[Item]) -> Iterator[tuple[str, Case]]:
  """Yields masks that several images share, such as 1.png and 1.jpg."""
  owners = collections.defaultdict(list)
  for item in test:
    for mask in item.masks:
      owners[mask].append(item.name)
  for mask, names in owners.items():
    if len(names) > 1:
      name = pathlib.PurePath(os.path.relpath(mask, category)).as_posix()
      yield 'mask_shared', Case(name, ' and '.join(names))


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


def _listing(folder: pathlib.Path, wanted: Callable[[pathlib.Path], bool]) -> list[pathlib.Path]:
  """Lists the visible entries that are wanted, in natural order; none without a folder."""
  if not folder.is_dir():
    return []
  try:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
  except OSError as error:
    raise UserError(f'{folder}: cannot be read ({error.strerror}); check it') from error
  return sorted(filter(wanted, entries), key=lambda entry: natural_key(entry.name))


def folders(folder: pathlib.Path) -> list[str]:
  """Returns the names of its sub-folders, in natural order; none where it is missing."""
  return [entry.name for entry in _listing(folder, pathlib.Path.is_dir)]


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the image files of a folder, in natural order; none where it is missing."""
  return _listing(folder, lambda path: path.suffix.lower() in images.SUFFIXES and path.is_file())


def items(
  category: pathlib.Path, place: str, defect: str = GOOD, find: FindMasks = no_masks
) -> tuple[Item, ...]:
  """Returns the images of a sub-folder of a category, such as 'test/scratch', all of one type."""
  found = ((path, find(path)) for path in image_files(category / place))
  folder = pathlib.PurePosixPath(place)
  return tuple(
    Item(str(folder / path.name), defect, path, own, _ambiguous(path, own)) for path, own in found
  )


def in_natural_order(found: Iterable[Item]) -> tuple[Item, ...]:
  """Returns items by their names; what lists them elsewhere has no order."""
  return tuple(sorted(found, key=lambda item: natural_key(item.name)))


def items_with_mask_folders(category: pathlib.Path) -> tuple[Item, ...]:
  """Returns the images of test/TYPE, whose masks fill ground_truth/TYPE/STEM, by type."""

  def of_type(defect: str) -> tuple[Item, ...]:
    truth = category / TRUTH / defect
    return items(
      category, f'test/{defect}', defect, lambda image: tuple(image_files(truth / image.stem))
    )

  return tuple(item for defect in folders(category / 'test') for item in of_type(defect))


def _ambiguous(image: pathlib.Path, own: tuple[pathlib.Path, ...]) -> str:
  """Says of several masks of an image that they are not all in a folder of its name."""
  if len(own) < 2 or all(mask.parent.name in (image.stem, image.name) for mask in own):
    return ''
  return f'{image}: has several masks, {own[0]} and {own[1]}; keep one'


def mask_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the mask files of a folder, in natural order; none where it is missing."""
  return _listing(folder, lambda path: path.suffix.lower() in masks.SUFFIXES and path.is_file())


def masks_in(folder: pathlib.Path) -> FindMasks:
  """Finds the masks of an image by its name: files and folders that bear it, see above."""
  by_name = collections.defaultdict(list)
  for path in mask_files(folder):
    for name in masks.names_of_image(path):
      by_name[name].append(path)
  for name in folders(folder):
    by_name[name] += mask_files(folder / name)

  def find(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return tuple(dict.fromkeys(by_name.get(image.stem, []) + by_name.get(image.name, [])))

  return find
