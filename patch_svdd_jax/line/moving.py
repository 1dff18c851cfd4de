"""Files moved out of the way once their result is on disk; none is overwritten, lost or doubled."""

import contextlib
import os
import pathlib
import shutil
from typing import NamedTuple

from patch_svdd_jax.data import images
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files
from patch_svdd_jax.system.digests import digest_bytes

GOOD, BAD = 'good', 'bad'


class State(NamedTuple):
  """What tells a file from another that has its name: another content shows in one of these."""

  size: int
  modified: int
  inode: int


def state_of(path: pathlib.Path) -> State | None:
  """Returns the state of the file at a path, behind links; None where there is none."""
  try:
    found = path.stat()
  except OSError:
    return None
  return State(found.st_size, found.st_mtime_ns, found.st_ino)


def marked(path: pathlib.PurePath, number: int) -> str:
  """Returns a file's name with the number of its result: 'part~17.png'."""
  return files.fitting(f'{path.stem}~{number}', path.suffix)


def move(
  path: pathlib.Path, target: pathlib.Path, number: int, state: State, digest: str = ''
) -> bool:
  """Moves a file, under a marked name where another has the target's.

  Its name at the target appears at once and whole, then the one at the path goes: after a crash in
  between the same call does the rest.

  Args:
    path: of the file.
    target: where to; its folder is made where it is missing.
    number: of its result.
    state: of the content that the result is of.
    digest: of that content, where a crash may have left a copy at the target; otherwise ''.

  Returns:
    Whether it was moved: not if there is another content now.

  Raises:
    OSError: the disk is full, or the folder cannot be written.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  place = target
  while state_of(path) == state:
    if not _is_there(path, place, digest):
      try:
        _place(path, place)
      except FileExistsError:
        place = place.with_name(marked(place, number))
        continue
    if state_of(path) == state:
      path.unlink()
      return True
    # Another came just now, and may be what lies at the target.
    with contextlib.suppress(OSError):
      if path.samefile(place):
        place.unlink()
  return False


def _is_there(path: pathlib.Path, place: pathlib.Path, digest: str) -> bool:
  """Returns whether a crash has left the file at the target already."""
  with contextlib.suppress(OSError, UserError):
    return path.samefile(place) or (
      bool(digest) and digest_bytes(images.read_bytes(place)) == digest
    )
  return False


def _place(path: pathlib.Path, place: pathlib.Path) -> None:
  """Gives a file another name besides its own.

  Raises:
    FileExistsError: another has it.
  """
  if path.is_symlink():
    place.symlink_to(path.resolve())
    return
  try:
    os.link(path, place)
  except FileExistsError:
    raise
  except OSError:  # another disk, or one without hard links
    copy = place.with_name(files.fitting(f'.{place.name}', files.UNFINISHED))
    shutil.copy2(path, copy)
    with copy.open('rb+') as file:
      os.fsync(file.fileno())
    try:
      os.link(copy, place)
    except FileExistsError:
      raise
    except OSError:
      if place.exists():
        raise FileExistsError(place) from None
      copy.rename(place)
    finally:
      copy.unlink(missing_ok=True)
