"""Recognises which form a set of one's own has by what is there, without an option.

  - a file: a list of images, see `image_list`;
  - a folder with train or test inside: the layout of MVTec AD, see `layout`;
  - a folder with folders of normal images, abnormal ones and masks: see `separate_folders`;
  - a folder with images right inside: all of them are normal, and trained on.

What could be two of these is refused, with what to write instead.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from patch_svdd_jax.data import image_list, layout, passed_over, report, separate_folders
from patch_svdd_jax.data.folder_names import Role, means_region, role
from patch_svdd_jax.errors import UserError

MVTEC = 'read as the layout of MVTec AD: train/good, test/TYPE, ground_truth/TYPE'
FLAT = 'read as a folder of normal images: all are trained on, none is there to test'
_OTHERWISE = f'or write a list, parts.csv: {image_list.EXAMPLE}'


def scan(place: pathlib.Path) -> layout.Layout:
  """Recognises a set and finds its images and masks.

  Args:
    place: a list, or a folder.

  Raises:
    UserError: the set has no form, or could have several; it cannot be read.
  """
  if image_list.is_list(place) and place.is_file():
    return image_list.scan(place)
  if splits := _splits(place):
    _check_mvtec(place, splits)
    return dataclasses.replace(layout.scan(place), form=MVTEC)
  found = separate_folders.roles(place)
  is_loose = separate_folders.has_images(place)
  if any(found[each] for each in ('normal', 'normal_test', 'abnormal')):
    _check_separate(place, found, is_loose)
    return separate_folders.scan(place, found)
  if is_loose:
    _check_flat(place, found)
    return _scan_flat(place)
  _refuse_unknown(place, found)
  return layout.scan(place)  # which says that there is no image


def is_category(place: pathlib.Path) -> bool:
  """Returns whether a folder beside others is a set of images by itself."""
  if means_region(place.name):
    return False
  if layout.normal_folders(place):
    return True
  if _splits(place.parent) or not place.is_dir():
    return False
  found = separate_folders.roles(place)
  return bool(found['normal'] and found['abnormal'])


def _splits(place: pathlib.Path) -> list[str]:
  """Returns the folders that are those of MVTec AD's layout."""
  return [found for name in ('train', 'test') if (found := layout.folder_named(place, name))]


def _check_mvtec(place: pathlib.Path, splits: Sequence[str]) -> None:
  """Checks that no normal images stand beside train, which might be meant for training."""
  for name in layout.folders(place):
    if role(name) in ('normal', 'normal_test') and separate_folders.has_images(place / name):
      raise UserError(
        f'{place}: holds {splits[0]} and {name}, both for images: which are trained on? Move '
        f'the images of {name} into train/good or test/good, {_OTHERWISE}'
      )


def _check_separate(place: pathlib.Path, found: separate_folders.Roles, is_loose: bool) -> None:
  """Checks that there is at most one folder for each role, and no other folder or image."""
  for each, names in found.items():
    if each and len(names) > 1:
      raise UserError(
        f'{place}: holds {" and ".join(names)}, both for {_MEANINGS[each]}; keep one, {_OTHERWISE}'
      )
  known = ', '.join(name for each, names in found.items() if each for name in names)
  if is_loose:
    raise UserError(
      f'{place}: holds images beside {known}; move them into these folders, {_OTHERWISE}'
    )
  if not found['normal']:
    raise UserError(
      f'{place}: holds {known}, but no folder of normal images to train on; call it normal, '
      f'{_OTHERWISE}'
    )
  if others := found[None]:
    raise UserError(
      f'{place}: holds {known}, and {", ".join(others)}, whose images may be anything; move '
      f'defects into abnormal/{others[0]}, all else away, {_OTHERWISE}'
    )


_MEANINGS: dict[Role, str] = {
  'normal': 'normal images',
  'normal_test': 'normal images to test',
  'abnormal': 'abnormal images',
  'masks': 'masks',
}


def _check_flat(place: pathlib.Path, found: separate_folders.Roles) -> None:
  """Checks that a flat folder holds nothing but images, and no list that may describe them."""
  if others := [name for names in found.values() for name in names]:
    raise UserError(
      f'{place}: holds images beside {", ".join(others)}; move normal images into train/good, '
      f'those to test into test/TYPE, {_OTHERWISE}'
    )
  if lists := _lists(place):
    raise UserError(
      f'{place}: holds images and {lists[0]}, which may list them; give {place / lists[0]}, or '
      'move it away to train on all images there'
    )


def _refuse_unknown(place: pathlib.Path, found: separate_folders.Roles) -> None:
  """Raises an error for a folder without images that seems to hold a set in another form."""
  others = [name for names in found.values() for name in names]
  if lists := _lists(place):
    raise UserError(f'{place}: holds no images, but {lists[0]}; give {place / lists[0]}')
  if inside := [name for name in layout.folders(place) if is_category(place / name)]:
    raise UserError(
      f'{place}: holds sets of images ({", ".join(inside)}); give {place / inside[0]}, or '
      'config.data.category=all'
    )
  if others:
    raise UserError(
      f'{place}: holds {", ".join(others)}, whose names do not say what is inside; call the '
      f'folders normal, abnormal and masks, {_OTHERWISE}'
    )


def _lists(place: pathlib.Path) -> list[str]:
  files = sorted(path.name for path in place.iterdir() if not path.name.startswith('.'))
  return [name for name in files if image_list.is_list(place / name)]


def _scan_flat(place: pathlib.Path) -> layout.Layout:
  found = [item for item in layout.items(place, '.') if not means_region(item.image.name)]
  train = tuple(layout.beside(found))
  used = {item.image for item in train}
  return layout.Layout(
    train, (), findings=report.findings(passed_over.left_out(place, used)), form=FLAT
  )
