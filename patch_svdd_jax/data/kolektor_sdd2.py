"""KolektorSDD2 as a TFDS builder."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable

from patch_svdd_jax.data import images, layout
from patch_svdd_jax.data.published import WHOLE, Counts, PublishedBuilder

_DEFECT = 'defect'
_CITATION = r"""
@article{bozic2021mixed,
  title = {Mixed supervision for surface-defect detection: from weakly to fully
           supervised learning},
  author = {Bo{\v{z}}i{\v{c}}, Jakob and Tabernik, Domen and Sko{\v{c}}aj, Danijel},
  journal = {Computers in Industry},
  volume = {129}, year = {2021},
  doi = {10.1016/j.compind.2021.103459}
}
"""


class KolektorSdd2(PublishedBuilder):
  """KolektorSDD2: one kind of surface, about 230 x 630 pixels.

  train/<number>.png, test/<number>.png: normal where the mask is empty
  train/<number>_GT.png, test/<number>_GT.png: the masks

  The 246 defective images of train are left out, as is a copy of one image that the download holds.
  """

  name = 'kolektor_sdd2'
  title = 'KolektorSDD2'
  description = 'Photographs of one kind of production item, upright and narrow.'
  homepage = 'https://www.vicos.si/resources/kolektorsdd2/'
  license = 'CC BY-NC-SA 4.0'
  citation = _CITATION
  counts = {WHOLE: Counts(2085, 894, 110)}  # noqa: RUF012, a table

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images; names do not tell which are normal, so all are called defective here."""
    return layout.Layout(_numbered(root, 'train'), _numbered(root, 'test'))

  def labelled(self, found: layout.Layout) -> layout.Layout:
    """Reads the masks."""
    train, test = _labelled(found.train), _labelled(found.test)
    normal = tuple(item for item in train if item.defect == layout.GOOD)
    return dataclasses.replace(found, train=normal, test=test)


def _numbered(root: pathlib.Path, split: str) -> tuple[layout.Item, ...]:
  def mask(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return (image.with_name(f'{image.stem}_GT.png'),)

  items = layout.items(root, split, _DEFECT, mask)
  return tuple(item for item in items if re.fullmatch(r'\d+', item.image.stem))


def _labelled(items: Iterable[layout.Item]) -> tuple[layout.Item, ...]:
  return tuple(
    item if _is_marked(item.masks[0]) else dataclasses.replace(item, defect=layout.GOOD)
    for item in items
  )


def _is_marked(mask: pathlib.Path) -> bool:
  return bool(images.decode_mask(images.read_bytes(mask), str(mask)).any())
