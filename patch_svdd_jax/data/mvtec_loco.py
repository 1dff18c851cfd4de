"""MVTec LOCO AD as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = """
@article{bergmann2022beyond,
  title = {Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
           Localization},
  author = {Bergmann, Paul and Batzner, Kilian and Fauser, Michael and Sattlegger, David and
            Steger, Carsten},
  journal = {International Journal of Computer Vision},
  volume = {130}, pages = {947--969}, year = {2022},
  doi = {10.1007/s11263-022-01578-9}
}
"""


class MvtecLoco(PublishedBuilder):
  """MVTec LOCO AD: structural anomalies, and logical ones.

  <category>/train/good, validation/good, test/good
  <category>/test/logical_anomalies, test/structural_anomalies
  <category>/ground_truth/<type>/<stem>/000.png, 001.png, ...: their union is the mask

  The counts are those of the download. Bergmann et al. 2022 give six training images and one
  validation image less of splicing_connectors.
  """

  name = 'mvtec_loco'
  title = 'MVTec LOCO AD'
  description = 'Photographs of 5 scenes with structural and logical anomalies.'
  homepage = 'https://www.mvtec.com/company/research/datasets/mvtec-loco'
  license = 'CC BY-NC-SA 4.0, MVTec Software GmbH'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    'breakfast_box': Counts(351, 102, 173, validation=62),
    'juice_bottle': Counts(335, 94, 236, validation=54),
    'pushpins': Counts(372, 138, 172, validation=69),
    'screw_bag': Counts(360, 122, 219, validation=60),
    'splicing_connectors': Counts(360, 119, 193, validation=60),
  }
  parts = ('train', 'validation', 'test', 'ground_truth')

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images, whose masks fill a folder of the image's name."""
    category = self.category_folder(root)
    return layout.Layout(
      train=layout.items(category, 'train/good'),
      validation=layout.items(category, 'validation/good'),
      test=layout.items_with_mask_folders(category),
    )
