"""Which image files lie below folders, and what else, so that nothing is left out silently."""

import collections
import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from patch_svdd_jax.data import images
from patch_svdd_jax.data.folder_names import means_region
from patch_svdd_jax.data.layout import natural_key
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

# What `predict` and `eval` write, by the file that shows a folder to be theirs.
_PREDICTED = frozenset(
  ('results.jsonl', 'results.jsonl.partial', 'results.csv', 'report.html', 'masks', 'overlays')
)
_EVALUATED = frozenset(
  ('maps.npz', 'metrics.json', 'report.html', 'overview.png', 'checkpoints.png', 'overlays')
)
_RESULTS = {
  'results.jsonl': _PREDICTED,
  'results.jsonl.partial': _PREDICTED,
  'maps.npz': _EVALUATED,
}
_MOST_NAMED = 5  # suffixes, or folders


class Source(NamedTuple):
  """An image file: its path, and its name, the path below the folder that all have in common."""

  name: str
  path: pathlib.Path


class Found(NamedTuple):
  """The images, and a line about what else is there; '' where there is nothing else."""

  sources: list[Source]
  passed_over: str

  def summary(self) -> str:
    """Returns one line: how many images there are, of which suffixes, and what else."""
    suffixes = collections.Counter(source.path.suffix.lower() for source in self.sources)
    counts = [f'{number:,} {suffix or "no suffix"}' for suffix, number in suffixes.most_common()]
    images = f'{len(self.sources):,} image{"s" * (len(self.sources) != 1)} ({_listed(counts)})'
    return '; '.join(filter(None, [images, self.passed_over]))


def find(places: Sequence[pathlib.Path]) -> Found:
  """Finds the images that files and folders name, in natural order, each once.

  Folders are searched to any depth, for files of the suffixes of images; each real folder once,
  however many links lead to it. Passed over are hidden files and folders, regions of interest,
  other files, and what earlier runs of `predict` and `eval` have written. A file that is named
  itself is an image.

  Raises:
    UserError: a place is not there, or no image is.
  """
  search = _Search()
  folders = []
  for place in places:
    if place.is_dir():
      folders.append(_absolute(place))
    elif place.exists():
      folder = _absolute(place.parent)
      search.add(folder / place.name, os.path.realpath(folder))
    else:
      raise UserError(f'{place}: no such file or folder')
  search.walk(folders)
  paths, passed_over = list(search.images.values()), search.passed_over()
  if not paths:
    raise UserError(
      f'{", ".join(map(str, places))}: no images there ({", ".join(images.SUFFIXES)})'
      + (passed_over and f'; {passed_over}')
    )
  root = os.path.commonpath([path.parent for path in paths])
  sources = [Source(path.relative_to(root).as_posix(), path) for path in paths]
  return Found(sorted(sources, key=lambda source: natural_key(source.name)), passed_over)


def below(folder: pathlib.Path, without: Iterable[pathlib.Path] = ()) -> list[Source]:
  """Returns the images below one folder as `find` does, named by their paths below it.

  Args:
    folder: where to look.
    without: folders that are passed over, if they are there.

  Raises:
    UserError: the folder, or one below it, cannot be read; it may have gone meanwhile.
  """
  search, root = _Search(), _absolute(folder)
  for each in without:
    search.pass_over(each)
  search.walk([root])
  sources = [Source(path.relative_to(root).as_posix(), path) for path in search.images.values()]
  return sorted(sources, key=lambda source: natural_key(source.name))


def _absolute(folder: pathlib.Path) -> pathlib.Path:
  # What lies above a link is known to the file system alone.
  return folder.resolve() if '..' in folder.parts else folder.absolute()


class _Search:
  """A search that is going on.

  Attributes:
    images: the paths found, by the real folder and the name of each.
  """

  def __init__(self) -> None:
    self.images: dict[tuple[str, str], pathlib.Path] = {}
    self._walked: set[tuple[int, int]] = set()
    self._others: collections.Counter[str] = collections.Counter()
    self._hidden = self._no_files = 0
    self._regions: dict[pathlib.Path, None] = {}
    self._results: dict[pathlib.Path, None] = {}

  def add(self, path: pathlib.Path, real_folder: str) -> None:
    """Takes an image, if it is not there yet under another spelling."""
    self.images.setdefault((real_folder, path.name), path)

  def pass_over(self, folder: pathlib.Path) -> None:
    """Leaves out a folder, wherever it is met."""
    with contextlib.suppress(OSError):
      state = folder.stat()
      self._walked.add((state.st_dev, state.st_ino))

  def walk(self, folders: Sequence[pathlib.Path]) -> None:
    """Takes the images below folders; links come last, so that a file has its own path as name."""
    linked = collections.deque(folder for folder in folders if folder.is_symlink())
    waiting = [folder for folder in folders if not folder.is_symlink()]
    while waiting or linked:
      folder = waiting.pop() if waiting else linked.popleft()
      for path, is_link in self._below(folder):
        (linked if is_link else waiting).append(path)

  def _below(self, folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, bool]]:
    """Takes the images of a folder; yields the folders in it, and whether they are links."""
    real, entries = os.path.realpath(folder), self._entries(folder)
    results = _RESULTS.keys() & {entry.name for entry in entries}
    ours = frozenset[str]().union(*(_RESULTS[name] for name in results))
    if ours:
      self._results[folder] = None
    for entry in entries:
      path = folder / entry.name
      if entry.name in ours or entry.name == files.LOCK:
        continue
      if entry.name.startswith('.'):
        self._hidden += 1
      elif means_region(entry.name):
        self._regions[path] = None
      elif entry.is_dir(follow_symlinks=False):
        yield path, False
      elif entry.is_symlink() and path.is_dir():
        yield path, True
      else:
        self._take(path, real, is_file=entry.is_symlink() or entry.is_file())

  def _entries(self, folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """Returns what is in a folder, by name; nothing where it was walked before."""
    try:
      state = folder.stat()
      if (state.st_dev, state.st_ino) in self._walked:
        return []
      self._walked.add((state.st_dev, state.st_ino))
      with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
      raise UserError(f'{folder}: cannot be read ({error.strerror}); check it') from error

  def _take(self, path: pathlib.Path, real: str, *, is_file: bool) -> None:
    suffix = path.suffix.lower()
    if suffix not in images.SUFFIXES:
      self._others[suffix] += 1
    elif is_file:  # or a link to nothing, which is named by who reads it
      self.add(path, real)
    else:
      self._no_files += 1

  def passed_over(self) -> str:
    """Returns a line about what was passed over."""
    parts = []
    if self._others:
      count = sum(self._others.values())
      what = 'file that is no image' if count == 1 else 'files that are no images'
      suffixes = sorted(self._others, key=lambda suffix: (-self._others[suffix], suffix))
      listed = _listed([suffix or 'no suffix' for suffix in suffixes])
      parts.append(f'{count:,} {what} ({listed})')
    if self._hidden:
      parts.append(f'{self._hidden:,} hidden')
    if self._regions:
      parts.append(f'regions of interest ({_listed(list(map(str, self._regions)))})')
    if self._no_files:
      parts.append(f'{self._no_files:,} that cannot be read as files (sockets, pipes or devices)')
    if self._results:
      parts.append(f'what earlier runs have written to {_listed(list(map(str, self._results)))}')
    return f'passed over: {", ".join(parts)}' if parts else ''


def _listed(names: Sequence[str]) -> str:
  """Returns the first names, and how many more there are."""
  more = len(names) - _MOST_NAMED
  return ', '.join(names[:_MOST_NAMED]) + (f' and {more:,} more' if more > 0 else '')
