"""Files that appear whole or not at all, and what a disk can do to their writer in one line."""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator

from absl import logging

from patch_svdd_jax.errors import UserError

# No space left, over the quota, over the largest size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def explained(place: pathlib.Path) -> Iterator[None]:
  """Turns what the disk of a file or folder refuses its writer into one line.

  Raises:
    UserError: the disk is full, or nothing can be written there.
  """
  verbosity = logging.get_verbosity()
  # Orbax raises what its threads raise, and logs it with a traceback besides.
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  except (OSError, ValueError) as error:
    number = error_number(error)
    if number is None:
      raise
    if number in FULL:
      raise UserError(
        f'no space left on the disk of {place}: free some and run the same command again; what is '
        'already there is whole'
      ) from error
    in_the_way = number in (errno.EEXIST, errno.ENOTDIR)
    reason = 'a file has the name of a folder' if in_the_way else os.strerror(number)
    raise UserError(f'cannot write {place}: {reason}') from error
  finally:
    logging.set_verbosity(verbosity)


def error_number(error: Exception) -> int | None:
  """The errno of an OSError, or of a ValueError by which tensorstore reports one."""
  quoted = re.search(r"os_error_code='(\d+)'", str(error))
  return int(quoted[1]) if quoted else getattr(error, 'errno', None)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """The path to write a file under, which gets its name once all of it is there.

  Its folder is made where it is missing.

  Raises:
    UserError: it cannot be written; what was there before still is.
  """
  unfinished = path.with_name(f'{path.name}.tmp')
  with explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      yield unfinished
      os.replace(unfinished, path)
    finally:
      # Where it could not be made it cannot be removed either.
      with contextlib.suppress(OSError):
        unfinished.unlink()


def write(path: pathlib.Path, contents: bytes) -> None:
  """Writes a file, as of `whole`."""
  with whole(path) as unfinished:
    unfinished.write_bytes(contents)


def check_writable(path: pathlib.Path) -> None:
  """Refuses a file that cannot be written, and makes its folder.

  Raises:
    UserError: says why it cannot.
  """
  if path.is_dir():
    raise UserError(f'cannot write {path}: it is a folder')
  unfinished = path.with_name(f'{path.name}.tmp')
  with explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    unfinished.unlink()
