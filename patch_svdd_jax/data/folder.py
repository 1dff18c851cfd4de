"""Any folder in the layout of MVTec AD as a TFDS builder."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from patch_svdd_jax.data import layout, mirror
from patch_svdd_jax.data.builder import LayoutBuilder
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import working_copy


def category_folder(root: str, category: str) -> pathlib.Path:
  """The folder that holds train/good.

  Raises:
    UserError: where no root is given or the folder does not exist.
  """
  if not root:
    raise UserError('config.data.root is empty; set it to a folder that holds train/good')
  # Unlike Path.resolve, it takes a link that leads in a circle for a file that is not there.
  place = mirror.below(root, category)
  folder = type(place)(os.path.realpath(place))
  if not folder.is_dir():
    raise UserError(
      f'{folder}: is no folder; set config.data.root to a folder that holds train/good, '
      "or to its parent and config.data.category to the folder's name"
    )
  return folder


class Folder(LayoutBuilder):
  """The images of one folder that holds train/good.

  Args:
    folder: see `layout`.
  """

  name = 'folder'

  def __init__(self, *, folder: pathlib.Path, **kwargs: Any):
    self._folder = folder
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self._dataset_info(description='Images of a folder that holds train/good.')

  @property
  def source(self) -> str:
    """Returns the folder."""
    return working_copy.shown(self._folder)

  def found_now(self) -> layout.Layout:
    """Returns what the folder holds."""
    return layout.scan(self._folder)

  def fingerprint(self) -> str:
    """Returns a digest of the files' names and content."""
    return layout.fingerprint(self.found_now())

  def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Any]]:
    del dl_manager
    return self._layout_splits(self.found_now())
