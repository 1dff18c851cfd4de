"""BMAD, six sets of medical images, as a TFDS builder."""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from patch_svdd_jax.data import images, layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_DEFECT = 'Ungood'
# What names of folders say, in any case; of several above an image that nearest to it counts.
_SPLITS = {'train': 'train', 'val': 'validation', 'valid': 'validation', 'test': 'test'}
_KINDS = {'good': layout.GOOD, 'ungood': _DEFECT}
_MASKS = {'label', 'val_label', 'test_label', 'anomaly_mask'}
_CITATION = """
@inproceedings{bao2024bmad,
  title = {{BMAD}: Benchmarks for Medical Anomaly Detection},
  author = {Bao, Jinan and Sun, Hanshi and Deng, Hanqiu and He, Yinsheng and Zhang, Zhaoxiang and
            Li, Xingyu},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR) Workshops},
  pages = {4042--4053}, year = {2024}
}
"""


class _File(NamedTuple):
  """An image or mask, and what the folders above it say."""

  path: pathlib.Path
  split: str
  kind: str
  is_mask: bool


class Bmad(PublishedBuilder):
  """BMAD: slices of brains (MRI) and livers (CT), chests (X-ray), retinas (OCT), tissue.

  <category>/.../train/good
  <category>/.../valid/good, test/good, test/Ungood; validation is also called val
  <category>/.../test/Ungood/label/<name>: the masks of Brain, Liver and Retina_RESC

  The archives differ from each other, as by a folder img beside label, or label/Ungood for
  Ungood/label: all folders above a file are looked at, whatever their order. Each archive goes into
  a folder of the category's name, as by `unzip Brain_AD.zip -d Brain`. The defective images of the
  validation split and the masks of normal images are left out. The layout is that of the
  documentation (the authors' page, anomalib); no official download has been read here. The counts
  are those of the paper as others cite them; how many of the validation and test images are normal
  is known here of Brain alone.
  """

  name = 'bmad'
  title = 'BMAD'
  description = 'Medical images of 6 kinds, from MRI, CT, OCT, X-ray and microscopes.'
  homepage = 'https://github.com/DorisBao/BMAD'
  license = 'CC BY-NC-SA 4.0, and those of the six sources'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    'Brain': Counts(7500, 640, 3075, validation=39),
    'Chest': Counts(8000, None, None, validation=None),
    'Histopathology': Counts(5088, None, None, validation=None),
    'Liver': Counts(1542, None, None, validation=None),
    'Retina_OCT2017': Counts(26315, None, None, validation=None),
    'Retina_RESC': Counts(4297, None, None, validation=None),
  }
  without_masks = ('Chest', 'Histopathology', 'Retina_OCT2017')

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images, whose masks have their names."""
    category = self.category_folder(root)
    found = list(_files(category))
    marked = [each for each in found if each.is_mask and each.kind == _DEFECT]
    masks = {(each.split, each.path.stem): (each.path,) for each in marked}

    def item(image: _File) -> layout.Item:
      own = masks.get((image.split, image.path.stem), ()) if image.kind == _DEFECT else ()
      return layout.Item(image.path.relative_to(category).as_posix(), image.kind, image.path, own)

    def of(split: str, *kinds: str) -> tuple[layout.Item, ...]:
      here = (each for each in found if each.split == split and not each.is_mask)
      return layout.in_natural_order(item(each) for each in here if each.kind in kinds)

    return layout.Layout(
      of('train', layout.GOOD), of('test', layout.GOOD, _DEFECT), of('validation', layout.GOOD)
    )


def _files(category: pathlib.Path) -> Iterator[_File]:
  """Yields the files of which the folders say what they are."""
  for path in category.rglob('*'):
    names = [name.lower() for name in reversed(path.relative_to(category).parts[:-1])]
    split = next((_SPLITS[name] for name in names if name in _SPLITS), '')
    kind = next((_KINDS[name] for name in names if name in _KINDS), '')
    if split and kind and path.suffix.lower() in images.SUFFIXES and path.name[0] != '.':
      yield _File(path, split, kind, not _MASKS.isdisjoint(names))
