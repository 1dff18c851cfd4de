"""What a folder holds that is not read: every file that is left is found, and why is said."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from patch_svdd_jax.data import images, masks
from patch_svdd_jax.data.folder_names import may_be_meant, means_region, means_truth
from patch_svdd_jax.data.report import Case
from patch_svdd_jax.errors import UserError

# Images that are not read, by their suffixes, and by how their files begin.
PICTURES = (
  *('.apng', '.avif', '.bpg', '.dds', '.dib', '.eps', '.heic', '.heif', '.ico'),
  *('.jif', '.jpe', '.jpf', '.jpx', '.jxl', '.jxr', '.svg'),
  *('.dcm', '.exr', '.fits', '.hdr', '.npy', '.npz', '.pfm', '.raw', '.pam', '.pbm', '.pcx'),
  *('.pgm', '.pnm', '.ppm', '.psd', '.qoi', '.ras', '.rgb', '.sgi', '.tga', '.xbm', '.xpm'),
  *('.cr2', '.cr3', '.dng', '.nef', '.orf', '.raf', '.rw2', '.arw'),
)
_BEGINNINGS = (
  *(b'\x89PNG\r\n', b'\xff\xd8\xff', b'GIF8', b'II*\0', b'MM\0*', b'\0\0\0\x0cjP', b'\xff\x0a'),
  *(b'II+\0', b'MM\0+', b'8BPS', b'P4\n', b'P5\n', b'P6\n', b'v/1\x01', b'\xff\x4f\xff\x51'),
)
# Masks in formats that are not read, besides.
_ANNOTATIONS = ('.json', '.xml', '.txt', '.mat', '.csv', '.yaml', '.yml', '.pkl', '.pt', '.h5')
# Files that systems leave everywhere.
_CLUTTER = ('thumbs.db', 'desktop.ini', '__macosx', 'ehthumbs.db')


# Kinds of which each is named, not counted by folder.
_NAMED = (
  *('mask_without_image', 'masks_elsewhere', 'linked_folder', 'not_trained_on', 'folder_beside'),
)


@dataclasses.dataclass(frozen=True)
class Tree:
  """A category, and what its folders are called; None where it has no such one.

  Attributes:
    category: the folder.
    train, test, truth: names inside.
    types: those that are read of train and test, as 'train/good'.
  """

  category: pathlib.Path
  train: str | None = None
  test: str | None = None
  truth: str | None = None
  types: tuple[str, ...] = ()


class Entry(NamedTuple):
  """An entry of a walk: its names below the folder, its path, and its kind."""

  parts: tuple[str, ...]
  path: str
  kind: str  # 'file', 'folder', or 'other' such as a link that leads nowhere


def find(tree: Tree, used: Collection[pathlib.Path]) -> list[tuple[str, Case]]:
  """Returns all below a category that is not read, each with why, counted by folder and suffix.

  Folders that links lead to are gone through as far as the layout goes, each once.

  Args:
    tree: what the category's folders are called.
    used: all images and masks that are read.

  Raises:
    UserError: a folder cannot be read.
  """
  known = {path.stem for path in used} | {path.name for path in used}
  places = {os.fspath(path.parent) for path in used}
  splits = {tree.train, tree.test, tree.truth}

  def is_entered(entry: Entry, linked: bool) -> bool:
    if len(entry.parts) == 1:
      return entry.parts[0] in splits
    if len(entry.parts) == 2:
      return entry.parts[0] == tree.truth or '/'.join(entry.parts) in tree.types
    return not linked or entry.path in places

  left = _walk(tree.category, used, is_entered)
  return _counted((*_judge(entry, tree, known), entry) for entry in left)


def unused(folder: pathlib.Path, used: Collection[pathlib.Path]) -> list[tuple[str, Case]]:
  """Returns all below a folder, of whatever layout, that is not used; otherwise as `find`."""
  left = _walk(folder, used, lambda _, linked: not linked)
  return _counted((_kind_of_unused(entry), _suffix(entry), entry) for entry in left)


def _kind_of_unused(entry: Entry) -> str:
  if _is_hidden(entry):
    return 'hidden'
  return 'region' if means_region(entry.parts[0]) else 'unused'


def left_out(
  folder: pathlib.Path, used: Collection[pathlib.Path], truth: str | None = None
) -> list[tuple[str, Case]]:
  """Returns all below a set in separate folders, or a flat one, that is not read, with why.

  Args:
    folder: of the set.
    used: all images and masks that are read.
    truth: name of the folder of masks, if there is one.

  Raises:
    UserError: a folder cannot be read.
  """
  left = _walk(folder, used, lambda entry, linked: len(entry.parts) == 1 or not linked)
  return _counted((*_judge_left_out(entry, truth), entry) for entry in left)


def _judge_left_out(entry: Entry, truth: str | None) -> tuple[str, str]:
  suffix = _suffix(entry)
  if kind := _kind_of_nothing(entry):
    return kind, ''
  if entry.kind == 'folder':
    return 'linked_folder', ''
  if entry.parts[0] == truth and suffix in masks.SUFFIXES:
    return 'mask_without_image', suffix
  if not _is_picture(entry, suffix):
    return 'other_files', suffix
  if entry.parts[0] == truth:
    return 'mask_not_read', suffix
  return ('not_taken' if suffix in images.SUFFIXES else 'format_not_read'), suffix


def _walk(
  folder: pathlib.Path,
  used: Collection[pathlib.Path],
  is_entered: Callable[[Entry, bool], bool],
) -> Iterator[Entry]:
  """Yields files that are not used, and folders that are not entered, in the order of names."""
  paths = {os.fspath(path) for path in used}
  # Real folders come first, so that what a link leads to as well keeps its own name.
  waiting: collections.deque[tuple[Entry, bool]] = collections.deque()
  links: collections.deque[tuple[Entry, bool]] = collections.deque()
  waiting.append((Entry((), os.fspath(folder), 'folder'), False))
  seen = set()
  while waiting or links:
    place, linked = (waiting or links).popleft()
    status = pathlib.Path(place.path).stat()
    if (status.st_dev, status.st_ino) in seen:
      continue
    seen.add((status.st_dev, status.st_ino))
    for found, is_link in _listing(place, paths):
      if found.kind == 'folder' and not _is_hidden(found) and is_entered(found, linked or is_link):
        (links if linked or is_link else waiting).append((found, linked or is_link))
      else:
        yield found


def _listing(place: Entry, used: Collection[str]) -> list[tuple[Entry, bool]]:
  """Returns what is in a folder and is not used, each with whether it is a link."""
  found = []
  try:
    with os.scandir(place.path) as entries:
      left = [entry for entry in entries if entry.path not in used]
      for each in sorted(left, key=lambda entry: entry.name):
        kind = 'folder' if _is(each.is_dir) else 'file' if _is(each.is_file) else 'other'
        found.append((Entry((*place.parts, each.name), each.path, kind), each.is_symlink()))
  except OSError as error:
    raise UserError(f'{place.path}: cannot be read ({error.strerror}); check it') from error
  return found


def _is(question: Callable[[], bool]) -> bool:
  """Answers of a link that leads in a circle: no."""
  try:
    return question()
  except OSError:
    return False


def _is_hidden(entry: Entry) -> bool:
  return entry.parts[-1].startswith('.')


def _kind_of_nothing(entry: Entry) -> str | None:
  """Returns the kind of an entry that can be no image, mask or folder of them; None of others."""
  if _is_hidden(entry) or entry.parts[-1].casefold() in _CLUTTER:
    return 'hidden'
  if means_region(entry.parts[0]):
    return 'region'
  return 'no_file' if entry.kind == 'other' else None


def _suffix(entry: Entry) -> str:
  if entry.kind != 'file':
    return entry.kind
  return pathlib.PurePath(entry.parts[-1]).suffix.lower() or 'no suffix'


def _judge(entry: Entry, tree: Tree, known: Collection[str]) -> tuple[str, str]:
  """Returns the kind of what is not read, and what to say of it besides."""
  suffix = _suffix(entry)
  if kind := _kind_of_nothing(entry):
    return kind, ''
  if entry.kind == 'folder':
    return _judge_folder(entry), ''
  if tree.truth and entry.parts[0] == tree.truth:
    return _judge_mask(entry, suffix, known), suffix
  if not _is_picture(entry, suffix):
    return 'other_files', suffix
  if len(entry.parts) == 3:
    return 'format_not_read', suffix
  return ('wrong_level' if len(entry.parts) < 3 else 'too_deep'), suffix


def _judge_folder(entry: Entry) -> str:
  if len(entry.parts) > 2:
    return 'linked_folder'
  if means_truth(entry.parts[-1]):
    return 'masks_elsewhere'
  if len(entry.parts) == 2:
    return 'not_trained_on'
  return 'folder_beside' if may_be_meant(entry.parts[0]) else 'other_files'


def _judge_mask(entry: Entry, suffix: str, known: Collection[str]) -> str:
  if suffix in masks.SUFFIXES:
    if len(entry.parts) == 2:
      return 'wrong_level'
    return 'mask_without_image' if len(entry.parts) < 5 else 'too_deep'
  names = masks.names_of_image(pathlib.Path(entry.path)) | {entry.parts[-2]}
  if _is_picture(entry, suffix) or (suffix in _ANNOTATIONS and names & set(known)):
    return 'mask_not_read'
  return 'other_files'


def _is_picture(entry: Entry, suffix: str) -> bool:
  """Returns whether a file is an image, by its suffix or else by how it begins."""
  if suffix in images.SUFFIXES or suffix in PICTURES:
    return True
  try:
    with pathlib.Path(entry.path).open('rb') as file:
      start = file.read(12)
  except OSError:
    return False
  return start.startswith(_BEGINNINGS) or start[8:] == b'WEBP' or start[4:8] == b'ftyp'


def _counted(left: Iterable[tuple[str, str, Entry]]) -> list[tuple[str, Case]]:
  """Returns one case for all files of a folder of which the same is said."""
  by_place: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)
  for kind, detail, entry in left:
    by_place[kind, '/'.join(entry.parts[:-1]), detail].append('/'.join(entry.parts))
  cases = []
  for (kind, place, detail), names in by_place.items():
    if kind in _NAMED or len(names) == 1:
      cases += [(kind, Case(name)) for name in names]
    else:
      about = ', '.join(
        each for each in (detail, f'such as {pathlib.PurePath(names[0]).name}') if each
      )
      cases.append((kind, Case(place or '.', about, len(names))))
  return cases
