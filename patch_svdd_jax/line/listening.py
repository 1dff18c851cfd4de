"""What the system tells of changes in folders, and in those that links in them lead to."""

import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from patch_svdd_jax.data import images
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import one_line

logger = logging.getLogger(__name__)

# Milliseconds for which changes are gathered: without another, and in all.
STEP, DEBOUNCE = 10, 50


class Root(NamedTuple):
  """A folder that is listened to: its name below the watched one, and which one it is."""

  path: pathlib.Path
  name: pathlib.PurePosixPath
  identity: tuple[int, int]


def roots_of(folder: pathlib.Path, sources: Iterable[Source]) -> list[Root]:
  """Returns a folder and those outside of it that links in it lead to, as far as images tell."""
  found = {pathlib.Path(os.path.realpath(folder)): pathlib.PurePosixPath()}
  for parent in {source.path.parent: source for source in sources}.values():
    name, real = pathlib.PurePosixPath(parent.name).parent, os.path.realpath(parent.path.parent)
    if not any(pathlib.Path(real).is_relative_to(root) for root in found):
      found[pathlib.Path(real)] = name
  roots = []
  for path, name in found.items():
    try:
      state = path.stat()
    except OSError:
      continue
    roots.append(Root(path, name, (state.st_dev, state.st_ino)))
  return roots


class Listener:
  """Hears from the system what happens below folders.

  Attributes:
    roots: the folders.
    hears: whether it does.
  """

  def __init__(self, roots: list[Root], hear: Callable[[str, pathlib.Path], None]):
    import watchfiles  # may not be installed where folders are polled

    self.roots, self.hears = roots, True
    self._hear, self._stopping = hear, threading.Event()
    self._changes = watchfiles.watch(
      *(root.path for root in roots),
      watch_filter=None,
      step=STEP,
      debounce=DEBOUNCE,
      stop_event=self._stopping,
      rust_timeout=500,
      raise_interrupt=False,
      ignore_permission_denied=True,
    )
    self._thread = threading.Thread(target=self._run, name='listen', daemon=True)
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread."""
    self._stopping.set()
    self._thread.join()

  def _run(self) -> None:
    try:
      for changes in self._changes:
        for path in sorted(text for change, text in changes):
          self._changed(pathlib.Path(path))
    except (OSError, RuntimeError) as error:  # too many folders are listened to
      logger.warning('no events of changes (%s): the folder is polled', one_line(str(error)))
    self.hears = False

  def _changed(self, path: pathlib.Path) -> None:
    for root in self.roots:
      if path.is_relative_to(root.path):
        name = root.name / path.relative_to(root.path).as_posix()
        if any(part.startswith('.') for part in name.parts):
          continue
        if path.suffix.lower() in images.SUFFIXES:
          self._hear(str(name), path)
        elif path.is_dir():  # may have been filled before it was listened to
          for below in sorted(path.rglob('*')):
            if below.suffix.lower() in images.SUFFIXES:
              self._changed(below)
