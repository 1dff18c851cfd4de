"""BTAD as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = """
@inproceedings{mishra2021vtadl,
  title = {{VT-ADL}: A Vision Transformer Network for Image Anomaly Detection and Localization},
  author = {Mishra, Pankaj and Verk, Riccardo and Fornasier, Daniele and Piciarelli, Claudio and
            Foresti, Gian Luca},
  booktitle = {IEEE/IES International Symposium on Industrial Electronics (ISIE)},
  year = {2021}
}
"""


class Btad(PublishedBuilder):
  """BTAD: three products, 01, 02 and 03.

  <category>/train/ok, test/ok, test/ko: .bmp or .png
  <category>/ground_truth/ko/<stem>: .bmp or .png

  The counts are those of the download: the authors' page has the training images of 02 and 03 the
  other way round. Some masks of defective images are empty there.
  """

  name = 'btad'
  title = 'BTAD'
  description = 'Photographs of 3 industrial products, of body and surface defects.'
  homepage = 'https://github.com/pankajmishra000/VT-ADL'
  license = 'CC BY-SA 4.0, beanTech srl'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    '01': Counts(400, 21, 49),
    '02': Counts(399, 30, 200),
    '03': Counts(1000, 400, 41),
  }

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images: 'ok' is good, 'ko' is not."""
    category = self.category_folder(root)
    masks = layout.masks_in(category / 'ground_truth/ko')
    return layout.Layout(
      train=layout.items(category, 'train/ok'),
      test=layout.items(category, 'test/ok') + layout.items(category, 'test/ko', 'ko', masks),
    )
