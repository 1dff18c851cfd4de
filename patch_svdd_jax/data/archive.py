"""Some folders out of a tar archive."""

import itertools
import lzma
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system.batching import Bar


def extract(
  archive: pathlib.Path,
  wanted: Mapping[str, Collection[str]],
  folder: pathlib.Path,
  *,
  unread: Collection[str] = (),
) -> None:
  """Extracts parts of some folders, in one pass over the archive.

  Members that would land outside the folder, links that lead outside and special files are refused
  (tarfile's 'data' filter).

  Args:
    archive: tar file with any compression that tarfile knows.
    wanted: names of folders in the archive, at any depth, each with what is wanted of it, such as
      {'screw': ('train', 'test')}.
    folder: receives them by their names, such as screw/train and screw/test.
    unread: names of folders inside of these that stay in the archive.

  Raises:
    UserError: where the archive is damaged, hostile or lacks one of the folders.
    OSError: where `folder` cannot be written.
  """
  found = set()
  with _opened(archive) as stream:
    for tar, member in _members(stream, archive):
      parts = _wanted_parts(member.name, wanted)
      if parts and not set(parts) & set(unread):
        found.add(parts[0])
        _extract(tar, member.replace(name='/'.join(parts), deep=False), folder, archive)
  for name in wanted:
    if name not in found:
      raise UserError(f'{archive}: holds no folder {name!r}; is it the official archive?')


def categories(archive: pathlib.Path, part: str) -> set[str]:
  """Returns the names of the folders, at any depth, that hold a `part`, in one pass.

  Raises:
    UserError: where the archive is damaged.
  """
  with _opened(archive) as stream:
    paths = [pathlib.PurePosixPath(member.name) for _, member in _members(stream, archive)]
  pairs = (pair for path in paths for pair in itertools.pairwise(path.parts))
  return {category for category, top in pairs if top == part}


@contextmanager
def _opened(archive: pathlib.Path) -> Iterator[Any]:
  """Yields the file, read with a progress bar."""
  try:
    stream = archive.open('rb')
  except OSError as error:
    raise UserError(f'{archive}: cannot be read ({error.strerror}); check the file') from error
  size = archive.stat().st_size
  with (
    stream,
    Bar.wrapattr(
      stream, 'read', total=size, desc=f'Reading {archive.name}', mininterval=0.5, leave=False
    ) as watched,
  ):
    yield watched


def _members(
  stream: Any, archive: pathlib.Path
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
  try:
    # Read as a pipe ('r|*'), an archive that is cut at a member's end would pass for a whole one.
    with tarfile.open(fileobj=stream, mode='r:*') as tar:
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
  reason = str(error).partition('\n')[0].rstrip(':')
  return UserError(f'{archive}: is no tar archive or is damaged ({reason}); download it again')


def _wanted_parts(member: str, wanted: Mapping[str, Collection[str]]) -> tuple[str, ...]:
  """Returns 'any/screw/train/good/000.png' from 'screw' on; nothing if it is not wanted."""
  parts = pathlib.PurePosixPath(member).parts
  for i, (folder, part) in enumerate(itertools.pairwise(parts)):
    if part in wanted.get(folder, ()):
      return parts[i:]
  return ()
