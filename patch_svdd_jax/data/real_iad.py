"""Real-IAD as a TFDS builder."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder
from patch_svdd_jax.errors import UserError

_NORMAL = 'OK'
_DEFECTS = {
  'AK': 'pit',
  'BX': 'deformation',
  'CH': 'abrasion',
  'HS': 'scratch',
  'PS': 'damage',
  'QS': 'missing_parts',
  'YW': 'foreign_objects',
  'ZW': 'contamination',
}
_SIZES = ('realiad_1024', 'realiad_512', 'realiad_256', 'realiad_raw')  # of which the first is read
# The latter where the archive is extracted into a folder of its own name.
_SPLITS = ('realiad_jsons/realiad_jsons', 'realiad_jsons')
_CATEGORIES = """
  audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery
  plastic_nut plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape
  terminalblock toothbrush toy toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads
  woodstick zipper
"""
_CITATION = """
@inproceedings{wang2024realiad,
  title = {{Real-IAD}: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly
           Detection},
  author = {Wang, Chengjie and Zhu, Wenbing and Gao, Bin-Bin and Gan, Zhenye and Zhang, Jiangning
            and Gu, Zhihao and Qian, Shuguang and Chen, Mingang and Ma, Lizhuang},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {22883--22892}, year = {2024}
}
"""


class RealIad(PublishedBuilder):
  """Real-IAD: 30 objects, each part photographed from five sides.

  realiad_jsons/realiad_jsons/<category>.json: lists train and test, whose entries have an
    anomaly_class, an image_path and, if it is known, a mask_path
  realiad_1024/<category>: these images and masks, by the paths above

  Without realiad_1024, that of 512, 256 or raw is read. This is the protocol of single images
  (unsupervised, all views): each of a part's five images has a label of its own and is scored by
  itself; no scores of whole parts are made of them. The layout is that of the documentation (the
  project's page, anomalib); no official download has been read here, and the official number of
  images of each category is not known here.
  """

  name = 'real_iad'
  title = 'Real-IAD'
  description = 'Photographs of 30 objects from five sides.'
  homepage = 'https://realiad4ad.github.io/Real-IAD/'
  license = 'CC BY-NC-SA 4.0'
  citation = _CITATION
  counts = dict.fromkeys(_CATEGORIES.split(), Counts(None, None, None))

  @classmethod
  def categories_folder(cls, root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the largest images that are there."""
    for size in _SIZES:
      if (root / size).is_dir():
        return root / size
    raise UserError(
      f'{root}: has no folder {", ".join(_SIZES)}; '
      'set config.data.root to the folder that holds one of them and realiad_jsons'
    )

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images; training images that are not normal, which no list names, are left out."""
    category = self.category_folder(root)
    train, test = _splits(root, self.builder_config_name)
    return layout.Layout(
      layout.in_natural_order(_item(category, each) for each in train if _is_normal(each)),
      layout.in_natural_order(_item(category, each) for each in test),
    )


def _splits(root: pathlib.Path, category: str) -> tuple[list[dict[str, Any]], ...]:
  """Returns the entries of train and of test."""
  places = [root / folder / f'{category}.json' for folder in _SPLITS]
  path = next((place for place in places if place.is_file()), places[0])
  try:
    contents = json.loads(path.read_bytes())
    for entry in (*contents['train'], *contents['test']):
      if not (isinstance(entry['anomaly_class'], str) and isinstance(entry['image_path'], str)):
        raise TypeError
  except OSError as error:
    raise UserError(
      f'{path}: cannot be read ({error.strerror}); it comes with Real-IAD: '
      'set config.data.root to the folder that holds realiad_jsons'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path}: does not list train and test images with anomaly_class and image_path; '
      'extract it again'
    ) from error
  return contents['train'], contents['test']


def _is_normal(entry: Mapping[str, Any]) -> bool:
  return bool(entry['anomaly_class'] == _NORMAL)


def _item(category: pathlib.Path, entry: Mapping[str, Any]) -> layout.Item:
  kind, name, mask = entry['anomaly_class'], entry['image_path'], entry.get('mask_path')
  defect = layout.GOOD if _is_normal(entry) else _DEFECTS.get(kind, kind)
  return layout.Item(name, defect, category / name, (category / mask,) if mask else ())
