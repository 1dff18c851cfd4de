"""Kaputt as a TFDS builder."""

import pathlib
from typing import Any

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder
from patch_svdd_jax.errors import UserError

_COLUMNS = ('query_crop', 'defect', 'defect_types', 'item_material')
_MATERIALS = """
  book_other book_paper book_plastic_tight_wrap cardboard other paper plastic_bubble_wrap
  plastic_hard plastic_loose_bag plastic_tight_wrap
"""
_CITATION = r"""
@inproceedings{hoefer2025kaputt,
  title = {Kaputt: A Large-Scale Dataset for Visual Defect Detection},
  author = {H{\"o}fer, Sebastian and Henning, Dorian F. and Amiranashvili, Artemij and Morrison,
            Douglas and Tzes, Mariliza and Posner, Ingmar and Matvienko, Marc and Rennola,
            Alessandro and Milan, Anton},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)}, year = {2025}
}
"""


class Kaputt(PublishedBuilder):
  """Kaputt: items of a shop in trays, cut to the item; a category is what they are wrapped in.

  datasets/query-train.parquet, query-validation.parquet, query-test.parquet: each row names a
    photograph's crop, whether it is defective, the types, and the item's material
  query-crop/<query_crop>: these crops

  Both archives may also be extracted without these two folders. The photographs of an item that is
  whole, which are there to compare it with (reference), are not read, nor are the defective images
  of train and validation; the masks are of items, not of defects. The layout is that of the
  authors' README and of anomalib; no official download has been read here, and the official number
  of images of each material is not known here.
  """

  name = 'kaputt'
  title = 'Kaputt'
  description = 'Photographs of 48,000 items of a shop, by 10 materials.'
  homepage = 'https://www.kaputt-dataset.com/'
  license = 'CC BY-NC-ND 4.0'
  citation = _CITATION
  counts = dict.fromkeys(_MATERIALS.split(), Counts(None, None, None, validation=None))
  without_masks = tuple(counts)

  @classmethod
  def present(cls, root: pathlib.Path) -> list[str]:
    """Returns all materials, where the tables are."""
    return list(cls.counts) if _table(root, 'train').is_file() else []

  def category_folder(self, root: pathlib.Path) -> pathlib.Path:
    """Returns the root: the images of no category lie apart."""
    return root

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images by the tables, which alone tell their materials."""

    def of(split: str) -> tuple[layout.Item, ...]:
      rows = _rows(_table(root, split))
      mine = (row for row in rows if row['item_material'] == self.builder_config_name)
      return layout.in_natural_order(_item(root, row) for row in mine)

    train, validation = (
      tuple(item for item in of(split) if item.defect == layout.GOOD)
      for split in ('train', 'validation')
    )
    return layout.Layout(train, of('test'), validation)


def _table(root: pathlib.Path, split: str) -> pathlib.Path:
  return _below(root, 'datasets') / f'query-{split}.parquet'


def _below(root: pathlib.Path, archive: str) -> pathlib.Path:
  """Returns the folder that an archive was extracted to."""
  return root / archive if (root / archive).is_dir() else root


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  import pyarrow.parquet  # takes half a second

  try:
    with path.open('rb') as file:
      table = pyarrow.parquet.read_table(file)
  except OSError as error:
    raise UserError(
      f'{path}: cannot be read ({error.strerror}); it comes with Kaputt: '
      'set config.data.root to the folder that holds it'
    ) from error
  except pyarrow.ArrowException as error:
    raise UserError(f'{path}: is damaged; extract it again') from error
  if set(_COLUMNS) - set(table.column_names):
    raise UserError(f'{path}: has not the columns {", ".join(_COLUMNS)}; extract it again')
  rows: list[dict[str, Any]] = table.select(_COLUMNS).to_pylist()
  return rows


def _item(root: pathlib.Path, row: dict[str, Any]) -> layout.Item:
  types = (row['defect_types'] or 'defect').replace(',', '+')
  name = row['query_crop']
  defect = types if row['defect'] else layout.GOOD
  return layout.Item(name, defect, _below(root, 'query-crop') / name)
