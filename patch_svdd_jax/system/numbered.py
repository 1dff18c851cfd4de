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
  places = all_of(parent)
  return places[-1] if places else None


def all_of(parent: pathlib.Path) -> list[pathlib.Path]:
  """Returns the numbered folders by their numbers, the newest last."""
  places = (each for each in parent.glob('*') if each.name.isdecimal())
  return sorted(places, key=lambda place: int(place.name))


def remove_older(parent: pathlib.Path, kept: int = 1) -> None:
  """Removes all numbered folders but the newest so many, and those that someone reads just now.

  A folder loses its number before its first file goes, so one that has a number is whole.
  """
  for place in all_of(parent)[:-kept]:
    with locks.of_folder(place, shared=False) as free:
      if free:
        _set_aside(place)
  _clear(parent)


def remove_newest(parent: pathlib.Path) -> None:
  """Removes the newest folder, so that the one before it counts; who reads it reads that instead.

  A folder's number may come again for another one.
  """
  _set_aside(all_of(parent)[-1])
  _clear(parent)


def _set_aside(place: pathlib.Path) -> None:
  aside = place.with_name(f'{REMOVED}{place.name}')
  if aside.exists():  # one of the same number, whose removal was cut short
    shutil.rmtree(aside)
  place.rename(aside)


def _clear(parent: pathlib.Path) -> None:
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
    before = _state(place)
    with locks.of_folder(place, shared=True) as stays:
      if not stays:
        continue
      try:
        found = digests.damage(place)
        if found is None:
          contents = read(place)
          if _is_still(place, before):
            return contents
      except Exception as error:  # whatever it is, a folder that has gone explains it
        if _is_still(place, before):
          if isinstance(error, OSError | ValueError):
            found = str(error).partition('\n')[0]
            raise UserError(f'{place} cannot be read ({found}): {remedy}') from error
          raise
      if found and _is_still(place, before):
        raise UserError(f'{place} is damaged ({found}): {remedy}')
  raise UserError(
    f'{parent} is being written again and again: run the same command once that has ended'
  )


def _state(place: pathlib.Path) -> tuple[int, int] | None:
  """Returns what tells a folder from another one of its number; None where it is gone."""
  try:
    found = place.stat()
  except OSError:
    return None
  return found.st_ino, found.st_ctime_ns


def _is_still(place: pathlib.Path, before: tuple[int, int] | None) -> bool:
  return before is not None and _state(place) == before
