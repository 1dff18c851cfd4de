"""Prepared data sets in a store, which several machines share.

An entry lies there under the name that it has on a disk, which is of its content. Its description,
by which TFDS knows that it is whole, is uploaded and fetched last.
"""

import pathlib
from collections.abc import Collection

from patch_svdd_jax.data import entries
from patch_svdd_jax.system import files, working_copy
from patch_svdd_jax.system.store import Store


def fetch(shared: Store, entry: pathlib.Path) -> bool:
  """Fetches an entry that is locked, in place of what is there; returns whether it is in the store.

  Raises:
    UserError: the store cannot be read.
  """
  found = shared.list(entry.name)
  if not any(map(_describes, found)):
    return False
  entries.empty(entry)

  def get(name: str) -> None:
    shared.get(name, entry.parent / name, found[name].size)

  for names in _in_order(found):
    working_copy.each_at_once(get, names, f'Fetching {entry.name}')
  return True


def upload(shared: Store, entry: pathlib.Path) -> None:
  """Uploads an entry that is locked and whole.

  Raises:
    UserError: the store cannot be written.
  """
  paths = [path for path in entry.rglob('*') if path.is_file() and path.name != files.LOCK]
  names = {path.relative_to(entry.parent).as_posix(): path for path in paths}

  def put(name: str) -> None:
    shared.write(name, names[name].read_bytes())

  for part in _in_order(names):
    working_copy.each_at_once(put, part, f'Uploading {entry.name}')


def names(shared: Store, qualified_name: str) -> list[str]:
  """Returns the names of the entries of a data set and category that the store has.

  Raises:
    UserError: the store cannot be read.
  """
  found = {name.partition('/')[0] for name in shared.list() if _describes(name)}
  return sorted(name for name in found if entries.is_of(name, qualified_name))


def _describes(name: str) -> bool:
  return name.endswith(f'/{entries.INFO}')


def _in_order(names: Collection[str]) -> list[list[str]]:
  last = [name for name in names if _describes(name)]
  return [[name for name in names if name not in last], last]
