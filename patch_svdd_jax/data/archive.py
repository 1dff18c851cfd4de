"""One category out of a tar archive."""

import itertools
import lzma
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from patch_svdd_jax.errors import UserError

_TOP = ('train', 'test', 'ground_truth')


def extract_category(archive: pathlib.Path, category: str, folder: pathlib.Path) -> None:
  """Extracts the files of one category, in one pass over the archive.

  Members that would land outside the folder, links that lead outside and special files are refused
  (tarfile's 'data' filter).

  Args:
    archive: tar file with any compression that tarfile knows.
    category: folder in the archive, at any depth, that holds 'train'.
    folder: receives 'train', 'test' and 'ground_truth'.

  Raises:
    UserError: where the archive is damaged, hostile or lacks the category.
    OSError: where `folder` cannot be written.
  """
  found = False
  with _opened(archive) as stream:
    for tar, member in _members(stream, archive):
      name = _name_in_category(member.name, category)
      if name is not None:
        found = True
        _extract(tar, member.replace(name=name, deep=False), folder, archive)
  if not found:
    raise UserError(f'{archive}: holds no folder {category!r}; is it the archive of MVTec AD?')


def categories(archive: pathlib.Path) -> set[str]:
  """The names of the folders, at any depth, that hold 'train', in one pass over the archive.

  Raises:
    UserError: where the archive is damaged.
  """
  with _opened(archive) as stream:
    paths = [pathlib.PurePosixPath(member.name) for _, member in _members(stream, archive)]
  pairs = (pair for path in paths for pair in itertools.pairwise(path.parts))
  return {category for category, top in pairs if top == 'train'}


@contextmanager
def _opened(archive: pathlib.Path) -> Iterator[Any]:
  """The file, read with a progress bar."""
  try:
    stream = archive.open('rb')
  except OSError as error:
    raise UserError(f'{archive}: cannot be read ({error.strerror}); check the file') from error
  size = archive.stat().st_size
  with (
    stream,
    tqdm.wrapattr(
      stream, 'read', total=size, desc=f'Reading {archive.name}', mininterval=0.5, leave=False
    ) as watched,
  ):
    yield watched


def _members(
  stream: Any, archive: pathlib.Path
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
  try:
    with tarfile.open(fileobj=stream, mode='r|*') as tar:
      for member in tar:
        yield tar, member
  except (tarfile.ReadError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
    raise _damaged(archive, error) from error


def _extract(
  tar: tarfile.TarFile, member: tarfile.TarInfo, folder: pathlib.Path, archive: pathlib.Path
) -> None:
  try:
    tar.extract(member, folder, filter='data')
  except tarfile.FilterError as error:
    raise UserError(f'{archive}: refused, {error}; download it again') from error
  except (tarfile.ReadError, lzma.LZMAError, zlib.error, EOFError) as error:
    raise _damaged(archive, error) from error


def _damaged(archive: pathlib.Path, error: Exception) -> UserError:
  return UserError(f'{archive}: is no tar archive or is damaged ({error}); download it again')


def _name_in_category(member: str, category: str) -> str | None:
  """'any/screw/train/good/000.png' to 'train/good/000.png'; None for what belongs elsewhere."""
  parts = pathlib.PurePosixPath(member).parts
  for i, part in enumerate(parts[:-1]):
    if part == category and parts[i + 1] in _TOP:
      return '/'.join(parts[i + 1 :])
  return None
