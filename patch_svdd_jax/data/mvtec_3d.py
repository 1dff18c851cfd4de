"""The photographs of MVTec 3D-AD as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = """
@inproceedings{bergmann2022mvtec3d,
  title = {The {MVTec 3D-AD} Dataset for Unsupervised {3D} Anomaly Detection and Localization},
  author = {Bergmann, Paul and Jin, Xin and Sattlegger, David and Steger, Carsten},
  booktitle = {International Joint Conference on Computer Vision, Imaging and Computer Graphics
               Theory and Applications (VISAPP)},
  volume = {5}, pages = {202--213}, year = {2022},
  doi = {10.5220/0010865000003124}
}
"""


class Mvtec3d(PublishedBuilder):
  """MVTec 3D-AD without its point clouds.

  <category>/train/good/rgb, validation/good/rgb
  <category>/test/<type>/rgb; type 'good' is normal
  <category>/test/<type>/gt: a mask of each, by the same name

  The folders xyz beside them, the point clouds, are not read.
  """

  name = 'mvtec_3d'
  title = 'MVTec 3D-AD'
  description = 'Photographs of 10 objects that were also scanned in 3D.'
  homepage = 'https://www.mvtec.com/company/research/datasets/mvtec-3d-ad'
  license = 'CC BY-NC-SA 4.0, MVTec Software GmbH'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table; Bergmann et al. 2022, table 1
    'bagel': Counts(244, 22, 88, validation=22),
    'cable_gland': Counts(223, 21, 87, validation=23),
    'carrot': Counts(286, 27, 132, validation=29),
    'cookie': Counts(210, 28, 103, validation=22),
    'dowel': Counts(288, 26, 104, validation=34),
    'foam': Counts(236, 20, 80, validation=27),
    'peach': Counts(361, 26, 106, validation=42),
    'potato': Counts(300, 22, 92, validation=33),
    'rope': Counts(298, 32, 69, validation=33),
    'tire': Counts(210, 25, 87, validation=29),
  }
  parts = ('train', 'validation', 'test')
  unread = ('xyz',)

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images; those of a type stand beside their masks."""
    category = self.category_folder(root)

    def of_type(defect: str) -> tuple[layout.Item, ...]:
      place = f'test/{defect}'
      return layout.items(
        category, f'{place}/rgb', defect, layout.masks_in(category / place / 'gt')
      )

    return layout.Layout(
      train=layout.items(category, 'train/good/rgb'),
      validation=layout.items(category, 'validation/good/rgb'),
      test=tuple(item for defect in layout.folders(category / 'test') for item in of_type(defect)),
    )
