"""Any set of one's own as a TFDS builder: a folder, or a list of images."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from patch_svdd_jax.data import image_list, layout, mirror, recognition
from patch_svdd_jax.data.builder import LayoutBuilder
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import working_copy


def category_place(root: str, category: str) -> pathlib.Path:
  """Returns the folder or list of a set, see `recognition`.

  Raises:
    UserError: where no root is given or nothing is there.
  """
  if not root:
    raise UserError(f'config.data.root is empty; set it to {_WANTED}')
  place = mirror.below(root, category)
  if image_list.is_list(place) and place.is_file():
    return type(place)(os.path.realpath(place.parent)) / place.name
  # Unlike Path.resolve, it takes a link that leads in a circle for a file that is not there.
  folder = type(place)(os.path.realpath(place))
  if not folder.is_dir():
    raise UserError(
      f'{folder}: is no folder; set config.data.root to {_WANTED}, '
      "or to its parent and config.data.category to the folder's name"
    )
  return folder


_WANTED = (
  f'a folder that holds train/good, or to a list of images ({", ".join(image_list.SUFFIXES)})'
)


class Folder(LayoutBuilder):
  """The images of one set of one's own.

  Args:
    folder: or a list, see `recognition`.
  """

  name = 'folder'

  def __init__(self, *, folder: pathlib.Path, **kwargs: Any):
    self._place = folder
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self._dataset_info(description='Images of a folder or list.')

  @property
  def source(self) -> str:
    """Returns the folder or list."""
    return working_copy.shown(self._place)

  def found_now(self) -> layout.Layout:
    """Returns what is there."""
    return recognition.scan(self._place)

  def fingerprint(self) -> str:
    """Returns a digest of the files' names and content."""
    return layout.fingerprint(self.found_now())

  def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Any]]:
    del dl_manager
    return self._layout_splits(self.found_now())
