"""MVTec AD as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

HOMEPAGE = 'https://www.mvtec.com/company/research/datasets/mvtec-ad'
# Bergmann et al. 2021, table 1.
COUNTS = {
  'bottle': Counts(209, 20, 63),
  'cable': Counts(224, 58, 92),
  'capsule': Counts(219, 23, 109),
  'carpet': Counts(280, 28, 89),
  'grid': Counts(264, 21, 57),
  'hazelnut': Counts(391, 40, 70),
  'leather': Counts(245, 32, 92),
  'metal_nut': Counts(220, 22, 93),
  'pill': Counts(267, 26, 141),
  'screw': Counts(320, 41, 119),
  'tile': Counts(230, 33, 84),
  'toothbrush': Counts(60, 12, 30),
  'transistor': Counts(213, 60, 40),
  'wood': Counts(247, 19, 60),
  'zipper': Counts(240, 32, 119),
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


class Mvtec(PublishedBuilder):
  """MVTec AD; also from the official archive of one category."""

  name = 'mvtec'
  title = 'MVTec AD'
  description = 'Photographs of 15 objects and textures for unsupervised anomaly detection.'
  homepage = HOMEPAGE
  license = 'CC BY-NC-SA 4.0, MVTec Software GmbH'
  citation = _CITATION
  counts = COUNTS
  parts = ('train', 'test', 'ground_truth')

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Returns the layout of `layout.scan` in each category."""
    return layout.scan(self.category_folder(root))
