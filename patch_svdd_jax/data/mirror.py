"""Images in a store, mirrored on this machine, where all that reads them finds them as files.

A mirror lies in the user's cache folder and stays there: the next run fetches what is new in the
store, and removes what is gone. What has been fetched is noted file by file, so that a process
that was stopped resumes where it was. With a list of images come those that it names.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import posixpath
from collections.abc import Collection, Mapping

from patch_svdd_jax.data import image_list
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, locks, store, working_copy
from patch_svdd_jax.system.store import Found, Store

FOLDER = 'mirrors'
# A line for each file that has been fetched: its name and what tells its contents from others.
_FETCHED = '.fetched.jsonl'
# The URL, for those who list the mirrors.
_URL = '.url'
KEY = 'config.data.root'


def place(root: str, key: str = '', without: Collection[str] = ()) -> pathlib.Path:
  """Returns the path of a folder or list; of a URL, that of its mirror, brought up to date.

  That is done once in a process: it goes on with the images that it began with.

  Args:
    root: a path of this machine, as that of config.data.root, or a URL.
    key: the setting that it is of, for errors.
    without: names of folders right below it that are not needed.

  Raises:
    UserError: there is nothing, or the store cannot be read.
  """
  if not store.is_url(root):
    return files.place(root, key)
  return _mirrored(root.rstrip('/'), frozenset(without))


def below(root: str, category: str) -> pathlib.Path:
  """Returns the path of a folder below config.data.root, as `place` does, or of the root for ''."""
  if store.is_url(root):
    return place(f'{root.rstrip("/")}/{category}' if category else root)
  return place(root, KEY) / category


def listed() -> dict[pathlib.Path, str]:
  """Returns the folders of all mirrors of this user, and the URLs."""
  found = (files.cache_folder() / FOLDER).glob(f'*/{_URL}')
  return {place.parent: place.read_text('utf-8') for place in found}


@functools.cache
def _mirrored(url: str, without: frozenset[str]) -> pathlib.Path:
  parent, name = store.split_url(url)
  base = files.cache_folder() / FOLDER / hashlib.sha256(url.encode()).hexdigest()[:16]
  with files.explained(base):
    base.mkdir(parents=True, exist_ok=True)
    files.write(base / _URL, url.encode())
    # Waits for another process that fetches the same.
    with locks.lock(base / files.LOCK, waits=True):
      source = Store(parent)
      found = source.list(name)
      if not found:
        raise UserError(f'{url}: is not there, or empty')
      if image_list.is_list(base / name) and name in found:
        working_copy.copied(base, parent)
        source.get(name, base / name, found[name].size)
        found |= _named(source, image_list.paths(working_copy.copied(base / name, url)))
      left_out = tuple(f'{name}/{each}/' for each in without)
      _fetch(source, name, base, found, left_out)
  return working_copy.copied(base / name, url)


def _named(source: Store, paths: Collection[str]) -> dict[str, Found]:
  """Returns those of some paths below a store that are there."""
  names = {posixpath.normpath(path) for path in paths}
  folders = {posixpath.dirname(name) for name in names}
  outermost = [
    each for each in folders if not any(each.startswith(f'{other}/') for other in folders)
  ]
  listed: dict[str, Found] = {}
  for folder in [''] if '' in folders else outermost:
    listed |= source.list(folder)
  return {name: found for name, found in listed.items() if name in names}


def _fetch(
  source: Store,
  title: str,
  base: pathlib.Path,
  listed: Mapping[str, Found],
  left_out: tuple[str, ...],
) -> None:
  """Fetches what is listed and not left out, and removes what was fetched and is not listed."""
  before = _noted(base)
  wanted = {each: found for each, found in listed.items() if not each.startswith(left_out or '\0')}
  new = [each for each, found in wanted.items() if before.get(each) != found.identity]
  with (base / _FETCHED).open('a', encoding='utf-8') as notes:

    def get(each: str) -> None:
      source.get(each, base / each, wanted[each].size)
      notes.write(json.dumps([each, wanted[each].identity]) + '\n')

    working_copy.each_at_once(get, new, f'Fetching {title}')
  for each in before.keys() - listed.keys():
    (base / each).unlink(missing_ok=True)
  for folder, _, _ in os.walk(base, topdown=False):
    with contextlib.suppress(OSError):  # it is not empty
      pathlib.Path(folder).rmdir()


def _noted(base: pathlib.Path) -> dict[str, str]:
  """Returns what has been fetched, and is there still."""
  found: dict[str, str] = {}
  with contextlib.suppress(FileNotFoundError), (base / _FETCHED).open(encoding='utf-8') as notes:
    for line in notes:
      with contextlib.suppress(ValueError):  # cut off when a process was killed
        name, identity = json.loads(line)
        found[name] = identity
  return {name: identity for name, identity in found.items() if (base / name).exists()}
