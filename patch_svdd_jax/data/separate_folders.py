"""A set in separate folders for normal images, abnormal ones and masks, side by side.

  <set>/normal/<image>                  good, ok, ... as well
  <set>/normal_test/<image>             optional: normal images that are tested
  <set>/abnormal/<image>                optional; anomaly, defect, bad, ng, ...
  <set>/abnormal/<type>/<image>         by the kind of defect
  <set>/masks/<stem>_mask.<suffix>      optional; also masks/<type>/..., and the names of `layout`

These are the arguments normal_dir, normal_test_dir, abnormal_dir and mask_dir of anomalib's Folder.
Where there are abnormal images and no normal_test, every fifth normal image, in natural order and
beginning with the first, is tested and not trained on: images that are added at the end move none.
"""

import collections
import pathlib
from collections.abc import Mapping

from patch_svdd_jax.data import images, layout, passed_over, report
from patch_svdd_jax.data.folder_names import (
  Role,
  means_good,
  means_region,
  means_truth,
  resembles_good,
  role,
)
from patch_svdd_jax.data.report import Case
from patch_svdd_jax.errors import UserError

# Of normal images that are all in one folder, one of so many is tested.
TESTED = 5

# The folders that play each role, in natural order; those that play none under None.
Roles = Mapping[Role | None, list[str]]


def roles(place: pathlib.Path) -> Roles:
  """Returns the sub-folders that hold images, up to one folder deeper, by what they hold."""
  found: dict[Role | None, list[str]] = collections.defaultdict(list)
  for name in layout.folders(place):
    if means_region(name):
      continue
    if has_images(place / name) or any(
      has_images(place / name / inner) for inner in layout.folders(place / name)
    ):
      found[role(name)].append(name)
  return found


def has_images(folder: pathlib.Path) -> bool:
  """Returns whether image files lie right in a folder, beside a region of interest."""
  try:
    return any(
      path.suffix.lower() in images.SUFFIXES
      and not path.name.startswith('.')
      and not means_region(path.name)
      and path.is_file()
      for path in folder.iterdir()
    )
  except OSError as error:
    raise UserError(f'{folder}: cannot be read ({error.strerror}); check it') from error


def scan(place: pathlib.Path, found: Roles) -> layout.Layout:
  """Finds the images and masks.

  Args:
    place: the folder that holds the others.
    found: `roles` of it, at most one folder for each role, and one of normal images.

  Returns:
    The Layout, in an order that depends on the names alone.

  Raises:
    UserError: a folder cannot be read, or abnormal images are called good.
  """
  names = {each: folders[0] for each, folders in found.items() if each}
  normal = _images(place, names['normal'])
  tested = _images(place, names['normal_test']) if 'normal_test' in names else []
  defective = (
    _defective(place, names['abnormal'], names.get('masks')) if 'abnormal' in names else []
  )
  divided = bool(defective) and 'normal_test' not in names
  if divided:
    normal, tested = [item for i, item in enumerate(normal) if i % TESTED], normal[::TESTED]
  test = [*tested, *defective]
  used = {path for item in (*normal, *test) for path in (item.image, *item.masks)}
  odd = [
    *([] if normal else [_no_training_images(names['normal'])]),
    *(
      ('resembles_good', Case(f'{names["abnormal"]}/{name}'))
      for name in dict.fromkeys(item.defect for item in defective)
      if resembles_good(name)
    ),
    *layout.shared_masks(place, test),
    *passed_over.left_out(place, used, names.get('masks')),
  ]
  return layout.Layout(
    tuple(normal), tuple(test), findings=report.findings(odd), form=_form(names, divided)
  )


def _images(place: pathlib.Path, name: str) -> list[layout.Item]:
  return [*layout.beside(layout.items(place, name))]


def _defective(place: pathlib.Path, name: str, truth: str | None) -> list[layout.Item]:
  """Returns the abnormal images, whose types are the folders inside, or else the folder's name."""
  found = [*layout.beside(layout.items(place, name, name, _masks(place, truth, name)))]
  for inner in layout.folders(place / name):
    if means_good(inner):
      raise UserError(
        f'{place / name / inner}: is called {inner}, but lies among abnormal images; move it, if '
        'its images are normal, and call it normal_test'
      )
    if not means_truth(inner):
      find = _masks(place, truth, inner)
      found += layout.beside(layout.items(place, f'{name}/{inner}', inner, find))
  return found


def _masks(place: pathlib.Path, truth: str | None, kind: str) -> layout.FindMasks:
  """Finds the masks of abnormal images: in the folder of their type, or else right among masks."""
  if not truth:
    return layout.no_masks
  among = layout.masks_in(place / truth)
  own = layout.folder_named(place / truth, kind)
  of_kind = layout.masks_in(place / truth / own) if own else layout.no_masks
  return lambda image: of_kind(image) or among(image)


def _no_training_images(name: str) -> tuple[str, Case]:
  text = f'{name}: leaves no image to train on; put more normal images there'
  return 'no_training_images', Case(name, text)


def _form(names: Mapping[Role, str], divided: bool) -> str:
  """Returns what each folder is taken for."""
  parts = [f'normal images in {names["normal"]}']
  if divided:
    parts[0] += f', of which every {TESTED}th is tested, not trained on'
  if 'normal_test' in names:
    parts.append(f'normal images to test in {names["normal_test"]}')
  if 'abnormal' in names:
    parts.append(f'abnormal ones in {names["abnormal"]}')
  if 'masks' in names:
    parts.append(f'masks in {names["masks"]}')
  return f'read as separate folders: {"; ".join(parts)}'
