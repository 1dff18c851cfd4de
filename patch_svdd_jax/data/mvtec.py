"""MVTec AD as a TFDS builder."""

import functools
import hashlib
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from patch_svdd_jax.data import archive, layout
from patch_svdd_jax.data.builder import LayoutBuilder
from patch_svdd_jax.errors import UserError

HOMEPAGE = 'https://www.mvtec.com/company/research/datasets/mvtec-ad'
# Bergmann et al. 2021, table 1: training images, normal test images, anomalous test images.
COUNTS = {
  'bottle': (209, 20, 63),
  'cable': (224, 58, 92),
  'capsule': (219, 23, 109),
  'carpet': (280, 28, 89),
  'grid': (264, 21, 57),
  'hazelnut': (391, 40, 70),
  'leather': (245, 32, 92),
  'metal_nut': (220, 22, 93),
  'pill': (267, 26, 141),
  'screw': (320, 41, 119),
  'tile': (230, 33, 84),
  'toothbrush': (60, 12, 30),
  'transistor': (213, 60, 40),
  'wood': (247, 19, 60),
  'zipper': (240, 32, 119),
}
_CITATION = """
@article{bergmann2021mvtec,
  title = {The {MVTec} Anomaly Detection Dataset: A Comprehensive Real-World Dataset for
           Unsupervised Anomaly Detection},
  author = {Bergmann, Paul and Batzner, Kilian and Fauser, Michael and Sattlegger, David and
            Steger, Carsten},
  journal = {International Journal of Computer Vision},
  volume = {129}, number = {4}, pages = {1038--1059}, year = {2021},
  doi = {10.1007/s11263-020-01400-4}
}
"""


def categories_in(root: pathlib.Path) -> list[str]:
  """The categories that an archive, which is read through, or a folder holds.

  Raises:
    UserError: where the archive is damaged.
  """
  if root.is_file():
    held = archive.categories(root)
    return [category for category in COUNTS if category in held]
  return [category for category in COUNTS if (root / category).is_dir()]


class Mvtec(LayoutBuilder):
  """MVTec AD, one config a category.

  Args:
    root: the official archive (mvtec_anomaly_detection.tar.xz, or that of one category), or the
      folder it was extracted to; may be empty where the category is prepared already.
  """

  name = 'mvtec'
  BUILDER_CONFIGS = [  # noqa: RUF012, as TFDS has it
    tfds.core.BuilderConfig(name=category, description=f'MVTec AD, category {category}.')
    for category in COUNTS
  ]

  def __init__(self, *, root: str = '', **kwargs: Any):
    self._root = root
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return self._dataset_info(
      description='Photographs of 15 objects and textures for unsupervised anomaly detection.',
      homepage=HOMEPAGE,
      citation=_CITATION,
      license='CC BY-NC-SA 4.0, MVTec Software GmbH',
    )

  @functools.cached_property
  def fingerprint(self) -> str:
    """Of the archive's name, size and time, or of the extracted files'; without root, as stored."""
    if not self._root and self.is_prepared():
      return self.info.metadata['fingerprint']
    root = self._existing_root()
    if not root.is_file():
      return layout.fingerprint(layout.scan(self._category_folder(root)))
    stat = root.stat()
    identity = f'{root.name}\0{stat.st_size}\0{stat.st_mtime_ns}'
    return hashlib.sha256(identity.encode()).hexdigest()

  def _existing_root(self) -> pathlib.Path:
    if not self._root:
      raise UserError(
        f'MVTec AD {self.builder_config_name} is not prepared yet: download it from {HOMEPAGE} '
        'and set config.data.root to the archive or to the folder it is extracted to'
      )
    root = pathlib.Path(self._root).expanduser()
    if not root.exists():
      raise UserError(
        f'{root}: does not exist; set config.data.root to the archive of MVTec AD ({HOMEPAGE}) '
        'or to the folder it is extracted to'
      )
    return root

  def _category_folder(self, root: pathlib.Path) -> pathlib.Path:
    folder = root / self.builder_config_name
    if not folder.is_dir():
      raise UserError(
        f'{root}: has no folder {self.builder_config_name!r}; '
        'set config.data.root to the folder that holds the categories'
      )
    return folder

  def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Any]]:
    del dl_manager  # nothing is downloaded: the licence asks for a registration
    root = self._existing_root()
    if root.is_file():
      folder = self._extracted
      archive.extract_category(root, self.builder_config_name, folder)
    else:
      folder = self._category_folder(root)
    found = layout.scan(folder)
    self._compare_counts(found)
    return self._layout_splits(found)

  @property
  def _extracted(self) -> pathlib.Path:
    """Inside the folder that is being prepared, so that it shares its fate."""
    return pathlib.Path(self.data_dir) / 'extracted'

  def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
    splits = super()._generate_splits(dl_manager, download_config)
    shutil.rmtree(self._extracted, ignore_errors=True)
    return splits

  def _compare_counts(self, found: layout.Layout) -> None:
    good = sum(item.defect == layout.GOOD for item in found.test)
    counts = (len(found.train), good, len(found.test) - good)
    official = COUNTS[self.builder_config_name]
    if counts != official:
      logging.warning(
        'MVTec AD %s: found %d training, %d good test and %d defective test images; the official '
        'data has %d, %d and %d: results will not compare',
        *(self.builder_config_name, *counts, *official),
      )
