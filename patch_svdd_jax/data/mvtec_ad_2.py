"""MVTec AD 2 as a TFDS builder."""

import pathlib
import re

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = r"""
@article{heckler2025mvtec,
  title = {The {MVTec AD 2} Dataset: Advanced Scenarios for Unsupervised Anomaly Detection},
  author = {Heckler-Kram, Lars and Neudeck, Jan-Hendrik and Scheler, Ulla and
            K{\"o}nig, Rebecca and Steger, Carsten},
  journal = {arXiv preprint arXiv:2503.21622}, year = {2025}
}
"""


class MvtecAd2(PublishedBuilder):
  """MVTec AD 2, whose public test images are scored.

  <category>/train/good, validation/good
  <category>/test_public/good, test_public/bad
  <category>/test_public/ground_truth/bad/<stem>_mask.png

  test_private and test_private_mixed have no labels outside of MVTec's server: no split has their
  images, `private_splits` lists them.
  """

  name = 'mvtec_ad_2'
  title = 'MVTec AD 2'
  description = 'Photographs of 8 objects and bulk goods; test images in several lights.'
  homepage = 'https://www.mvtec.com/company/research/datasets/mvtec-ad-2'
  license = 'CC BY-NC-SA 4.0, MVTec Software GmbH'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table; Heckler-Kram et al. 2025, table 4
    'can': Counts(412, 72, 90, validation=46),
    'fabric': Counts(387, 66, 90, validation=43),
    'fruit_jelly': Counts(263, 20, 60, validation=37),
    'rice': Counts(313, 42, 90, validation=35),
    'sheet_metal': Counts(137, 24, 90, validation=19),
    'vial': Counts(291, 35, 105, validation=41),
    'wallplugs': Counts(293, 60, 90, validation=33),
    'walnuts': Counts(432, 60, 90, validation=48),
  }
  parts = ('train', 'validation', 'test_public')

  @staticmethod
  def lighting(name: str) -> str:
    """Returns the light of an image, such as 'shift_1' of 'test_public/bad/003_shift_1.png'."""
    found = re.search(r'/\d+_(regular|underexposed|overexposed|shift_\d+)\.[^/]*$', name)
    return found[1] if found else ''

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images; masks stand among the test images."""
    category = self.category_folder(root)
    masks = layout.masks_in(category / 'test_public/ground_truth/bad')
    return layout.Layout(
      train=layout.items(category, 'train/good'),
      validation=layout.items(category, 'validation/good'),
      test=layout.items(category, 'test_public/good')
      + layout.items(category, 'test_public/bad', 'bad', masks),
    )
