"""Lists what was prepared of data sets, mirrored and compiled, and removes it.

Images are decoded once, and what becomes of them is kept in ~/.cache/patch_svdd_jax, or in the
folder that config.data.prepared names, until there is more than config.data.cache_gib: then what
was not used for longest goes by itself. Beside it are compiled programs, in `programs`, within a
bound of their own, and copies of images in buckets, in `mirrors`, until they are removed. All of it
can be removed at any time: what is needed is fetched, prepared and compiled again.

  patch-svdd cache
  patch-svdd cache --clear
  patch-svdd cache --clear folder-3f2a91c0d4e5b677
"""

import argparse
import datetime
import pathlib
from collections.abc import Sequence

from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import entries, mirror
from patch_svdd_jax.data.entries import Entry
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.reporting.table import markdown
from patch_svdd_jax.system import compilation_cache, digest_cache, files

# It only removes files.
NEEDS_DEVICES = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `cache`."""
  parser.add_argument(
    '--clear',
    nargs='*',
    metavar='NAME',
    help='remove these, or everything; what a run prepares or reads now stays',
  )
  parser.add_argument(
    '--prepared',
    type=console.path,
    metavar='FOLDER',
    help='the folder, where a config.data.prepared names another than ~/.cache/patch_svdd_jax',
  )
  outputs.add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
  """Lists or removes; the status is 1 where something was to be removed and is there still."""
  if options.json:
    files.check_writable(options.json)
  folder = options.prepared or files.cache_folder()
  found = list_all(options.prepared)
  left = 0
  if options.clear is not None:
    left = clear(chosen(found, options.clear, folder))
    if not options.clear and not options.prepared:
      digest_cache.forget()
    found = list_all(options.prepared)
  elif found:
    print(markdown(*table(found)))
  size = sum(entry.size for entry in found)
  bound = default.get_config().data.cache_gib
  noun = 'entry' if len(found) == 1 else 'entries'
  print(
    f'{folder}: {len(found)} {noun}, {console.megabytes(size)}; above '
    f'{console.megabytes(bound * 2**30)} (config.data.cache_gib={bound:g}) those not used for '
    'longest go'
  )
  outputs.write_json(
    options.json,
    {
      'folder': str(folder),
      'bytes': size,
      'entries': [
        {
          'name': entry.name,
          'source': entry.source,
          'images': entry.images,
          'bytes': entry.size,
          'used': entry.used.isoformat(timespec='seconds'),
          'in_use': entries.in_use(entry.place),
        }
        for entry in found
      ],
    },
  )
  return 1 if left else 0


def list_all(named: pathlib.Path | None) -> list[Entry]:
  """Returns what was prepared in a folder that is named, or all that the user's has."""
  if named:
    return entries.list_all(named)
  found = entries.list_all(files.cache_folder())
  found += [entries.of_mirror(place, url) for place, url in sorted(mirror.listed().items())]
  programs = files.cache_folder() / compilation_cache.FOLDER
  stats = compilation_cache.kept(programs).values()
  if stats:
    used = max(each.st_mtime for each in stats)
    found.append(
      Entry(
        name=programs.name,
        place=programs,
        source=f'{len(stats):,} compiled programs',
        images=0,
        size=sum(each.st_size for each in stats),
        used=datetime.datetime.fromtimestamp(used).astimezone(),
        evictable=False,
      )
    )
  return found


def chosen(found: Sequence[Entry], names: Sequence[str], folder: pathlib.Path) -> list[Entry]:
  """Returns the entries of these names, or all where none is given.

  Raises:
    UserError: there is none of a name.
  """
  by_name = {entry.name: entry for entry in found}
  for name in names:
    if name not in by_name:
      raise UserError(f'{folder}: has no entry {name!r}; `patch-svdd cache` lists them')
  return [by_name[name] for name in names] or list(found)


def clear(unwanted: Sequence[Entry]) -> int:
  """Removes entries, with a line about each; returns how many are there still."""
  left = 0
  for entry in unwanted:
    if remove(entry):
      print(f'removed: {entry.name} ({console.megabytes(entry.size)})')
    else:
      left += 1
      reason = 'a run uses it' if entries.in_use(entry.place) else 'it cannot be written'
      console.print_warnings([f'{entry.name} stays: {reason}'])
  return left


def remove(entry: Entry) -> bool:
  """Removes an entry that no run uses; returns whether it did. Programs can be removed any time."""
  if entry.name == compilation_cache.FOLDER:
    return not compilation_cache.remove(entry.place)
  return entries.remove(entry.place)


def table(found: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
  """Returns the heading and a line about each entry."""
  header = ['name', 'prepared from', 'images', 'size', 'last used']
  return header, [
    [
      entry.name,
      one_line(entry.source) or 'not finished',
      f'{entry.images:,}',
      console.megabytes(entry.size),
      f'{entry.used:%Y-%m-%d %H:%M}{", now" if entries.in_use(entry.place) else ""}',
    ]
    for entry in found
  ]
