"""Numbered folders, of which the newest counts; others read it while the next one is written."""

import pathlib
import shutil
from collections.abc import Callable
from typing import TypeVar

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digests, locks

# A reader whose folder has gone so many times in a row gives up.
ATTEMPTS = 50
REMOVED = 'removed_'

Contents = TypeVar('Contents')


def newest(parent: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of the highest number; None where there is none.

  Orbax gives a folder its number once all of it is there; unfinished ones have longer names.
  """
  numbers = [int(each.name) for each in parent.glob('*') if each.name.isdecimal()]
  return parent / str(max(numbers)) if numbers else None


def remove_older(parent: pathlib.Path) -> None:
  """Removes all numbered folders but the newest, and those that someone reads just now.

  A folder loses its number before its first file goes, so one that has a number is whole.
  """
  latest = newest(parent)
  for place in parent.iterdir():
    if place.name.isdecimal() and place != latest:
      with locks.of_folder(place, shared=False) as free:
        if free:
          place.rename(parent / f'{REMOVED}{place.name}')
  for place in parent.glob(f'{REMOVED}*'):
    shutil.rmtree(place)


def read_newest(
  parent: pathlib.Path, read: Callable[[pathlib.Path], Contents], remedy: str
) -> Contents | None:
  """Returns what `read` makes of the newest folder, which stays meanwhile.

  Where a file system has no locks it may go; then that of the next number is read.

  Args:
    parent: of the numbered folders.
    read: takes the path of a folder whose files are those that it was sealed with.
    remedy: what to do about a folder that is damaged.

  Returns:
    None where there is no folder.

  Raises:
    UserError: the folder is damaged, or goes again and again.
  """
  for _ in range(ATTEMPTS):
    place = newest(parent)
    if place is None:
      return None
    with locks.of_folder(place, shared=True) as stays:
      if not stays:
        continue
      try:
        found = digests.damage(place)
        if found is None:
          contents = read(place)
          if place.exists():
            return contents
      except Exception as error:  # whatever it is, a folder that has gone explains it
        if place.exists():
          if isinstance(error, OSError | ValueError):
            found = str(error).partition('\n')[0]
            raise UserError(f'{place} cannot be read ({found}): {remedy}') from error
          raise
      if found and place.exists():
        raise UserError(f'{place} is damaged ({found}): {remedy}')
  raise UserError(
    f'{parent} is being written again and again: run the same command once that has ended'
  )
