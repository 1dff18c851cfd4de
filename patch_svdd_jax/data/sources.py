"""Which builder a config names, and which of a data set's categories are there."""

import pathlib
from collections.abc import Callable, Collection

import ml_collections

from patch_svdd_jax.data import (
  catalogue,
  categories,
  entries,
  folder,
  layout,
  mirror,
  shared_entries,
  textures,
)
from patch_svdd_jax.data.builder import Builder
from patch_svdd_jax.data.published import WHOLE, PublishedBuilder
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, store
from patch_svdd_jax.system.store import Store


def builder_factory(config: ml_collections.ConfigDict) -> Callable[[pathlib.Path], Builder]:
  """Makes builders of one category, whose files are in the folder that they are given.

  Args:
    config: as for `data.load`.

  Raises:
    UserError: there is no such data set or category.
  """
  category, within = config.category, tuple(config.value_range)
  if config.name == 'textures':
    _check_category(category, textures.CATEGORIES)
    return lambda place: textures.Textures(config=category, data_dir=place)
  if config.name == 'folder':
    source = folder.category_place(config.root, category)
    return lambda place: folder.Folder(folder=source, data_dir=place, within=within)
  builder = _published(config)
  _check_category(category, builder.counts)
  return lambda place: builder(root=config.root, config=category, data_dir=place, within=within)


def title(config: ml_collections.ConfigDict, category: str) -> str:
  """Returns what a category is called: data set and category, or folder."""
  name = category or pathlib.Path(config.root).expanduser().resolve().name
  return f'{config.name}/{name}'


def names_every(config: ml_collections.ConfigDict) -> bool:
  """Returns whether it names every category, one by one, of a data set that has some."""
  if config.category != categories.EVERY:
    return False
  return config.name in ('textures', 'folder') or WHOLE not in _published(config).counts


def official(config: ml_collections.ConfigDict) -> list[str]:
  """Returns the categories of a data set, there or not; of a folder those that are there.

  Args:
    config: as for `data.load`; its category does not matter.

  Raises:
    UserError: there is no such data set or folder.
  """
  if config.name == 'textures':
    return list(textures.CATEGORIES)
  if config.name == 'folder':
    return categories.subfolders(folder.category_place(config.root, ''))
  return list(_published(config).counts)


def present(config: ml_collections.ConfigDict) -> list[str]:
  """Returns the categories whose images are there, below its root or, without one, prepared.

  Args:
    config: as for `data.load`; its category does not matter.

  Raises:
    UserError: there is none, or no such data set.
  """
  root = mirror.place(config.root, mirror.KEY) if config.root else pathlib.Path()
  if config.name in ('textures', 'folder'):
    found = official(config)
  elif WHOLE in _published(config).counts:
    found = [WHOLE]
  elif config.root:
    found = _published(config).present(root)
  else:
    builder, place, shared = _published(config), prepared_folder(config), prepared_store(config)
    found = [
      name
      for name in builder.counts
      if entries.newest(place, f'{builder.name}/{name}')
      or (shared and shared_entries.names(shared, f'{builder.name}/{name}'))
    ]
  if not found:
    where = root if config.root else 'config.data.prepared'
    raise UserError(f'{where}: holds no category of {config.name}; check config.data.root')
  return found


def passed_over(config: ml_collections.ConfigDict) -> str | None:
  """Returns what to say of folders beside the categories of a folder that are none themselves."""
  if config.name != 'folder':
    return None
  root = folder.category_place(config.root, '')
  others = [name for name in layout.folders(root) if name not in categories.subfolders(root)]
  return f'{root}: no category, without train/good: {", ".join(others)}' if others else None


def _published(config: ml_collections.ConfigDict) -> type[PublishedBuilder]:
  if config.name not in catalogue.BUILDERS:
    raise UserError(
      f'config.data.name={config.name!r}: no such data set; choose of '
      f'{", ".join(catalogue.BUILDERS)}, folder, textures'
    )
  return catalogue.BUILDERS[config.name]


def prepared_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Returns the folder of prepared data; where they are shared in a store, that of this user.

  Raises:
    UserError: the config names none and the user has no home.
  """
  if config.prepared and not store.is_url(config.prepared):
    return files.place(config.prepared, 'config.data.prepared')
  return files.cache_folder()


def prepared_store(config: ml_collections.ConfigDict) -> Store | None:
  """Returns the store in which prepared data are shared, if config.data.prepared names one."""
  return Store(config.prepared) if store.is_url(config.prepared) else None


def _check_category(category: str, known: Collection[str]) -> None:
  if category not in known:
    together = f', or {categories.MULTICLASS} for all as one' if len(known) > 1 else ''
    raise UserError(
      f'config.data.category={category!r}: no such category; choose of {", ".join(known)}{together}'
    )
