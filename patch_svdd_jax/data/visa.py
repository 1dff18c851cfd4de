"""VisA as a TFDS builder."""

import csv
import pathlib
from collections.abc import Collection, Mapping

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder
from patch_svdd_jax.errors import UserError

_SPLIT = pathlib.PurePosixPath('split_csv/1cls.csv')
_COLUMNS = ('object', 'split', 'label', 'image', 'mask')
_CITATION = """
@inproceedings{zou2022spot,
  title = {{SPot-the-Difference} Self-Supervised Pre-training for Anomaly Detection and
           Segmentation},
  author = {Zou, Yang and Jeong, Jongheon and Pemula, Latha and Zhang, Dongqing and Dabeer, Onkar},
  booktitle = {European Conference on Computer Vision (ECCV)},
  pages = {392--408}, year = {2022}
}
"""


class Visa(PublishedBuilder):
  """VisA by its one-class split, split_csv/1cls.csv.

  Each row of that file names a category, a split (train, test), a label (normal, anomaly), and the
  paths of an image and of its mask, as <category>/Data/Images/Anomaly/000.JPG and
  <category>/Data/Masks/Anomaly/000.png.
  """

  name = 'visa'
  title = 'VisA'
  description = 'Photographs of 12 objects, some of which are circuit boards or in groups.'
  homepage = 'https://github.com/amazon-science/spot-diff'
  license = 'CC BY 4.0'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    'candle': Counts(900, 100, 100),
    'capsules': Counts(542, 60, 100),
    'cashew': Counts(450, 50, 100),
    'chewinggum': Counts(453, 50, 100),
    'fryum': Counts(450, 50, 100),
    'macaroni1': Counts(900, 100, 100),
    'macaroni2': Counts(900, 100, 100),
    'pcb1': Counts(904, 100, 100),
    'pcb2': Counts(901, 100, 100),
    'pcb3': Counts(905, 101, 100),
    'pcb4': Counts(904, 101, 100),
    'pipe_fryum': Counts(450, 50, 100),
  }
  parts = ('Data',)

  def wanted(self) -> Mapping[str, Collection[str]]:
    """Returns the category, and the split."""
    return {**super().wanted(), _SPLIT.parent.name: (_SPLIT.name,)}

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images in natural order: the rows have none."""
    self.category_folder(root)
    splits: dict[str, list[layout.Item]] = {'train': [], 'test': []}
    for row in _rows(root / _SPLIT):
      if row['object'] == self.builder_config_name and row['split'] in splits:
        splits[row['split']].append(_item(root, row))
    train, test = (layout.in_natural_order(items) for items in splits.values())
    return layout.Layout(train, test)


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
  try:
    with path.open(newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
  except OSError as error:
    raise UserError(
      f'{path}: cannot be read ({error.strerror}); it comes with VisA: '
      'set config.data.root to the folder that holds it and the categories'
    ) from error
  if not rows or set(_COLUMNS) - rows[0].keys():
    raise UserError(f'{path}: has not the columns {", ".join(_COLUMNS)}; extract it again')
  return rows


def _item(root: pathlib.Path, row: Mapping[str, str]) -> layout.Item:
  defect = layout.GOOD if row['label'] == 'normal' else row['label']
  masks = (root / row['mask'],) if row['mask'] else ()
  name = row['image'].removeprefix(f'{row["object"]}/')
  return layout.Item(name, defect, root / row['image'], masks)
