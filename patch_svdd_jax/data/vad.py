"""VAD, the Valeo Anomaly Dataset, as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import WHOLE, Counts, PublishedBuilder

_CITATION = """
@inproceedings{baitieva2024supervised,
  title = {Supervised Anomaly Detection for Complex Industrial Images},
  author = {Baitieva, Aimira and Hurych, David and Besnier, Victor and Bernard, Olivier},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {17754--17762}, year = {2024},
  doi = {10.1109/CVPR52733.2024.01681}
}
"""


class Vad(PublishedBuilder):
  """VAD: one kind of part from a production line, without masks.

  train/good
  test/good, test/bad, test/bad_unseen_defects

  This is its one-class protocol: the 1,000 defective images of train/bad, which the supervised one
  learns from, are left out. The layout and the counts are those of the authors' page (of the 1,000
  defective test images, 165 are of kinds that train/bad has not); no official download has been
  read here.
  """

  name = 'vad'
  title = 'VAD'
  description = 'Photographs of one kind of industrial part with more than 20 types of defects.'
  homepage = 'https://github.com/abc-125/vad'
  license = 'CC BY-NC-SA 4.0'
  citation = _CITATION
  counts = {WHOLE: Counts(2000, 1000, 1000)}  # noqa: RUF012, a table
  without_masks = (WHOLE,)

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Counts everything that is not good as defective."""
    types = layout.folders(root / 'test')
    test = [item for kind in types for item in layout.items(root, f'test/{kind}', kind)]
    return layout.Layout(layout.items(root, 'train/good'), tuple(test))
