"""MPDD as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = """
@inproceedings{jezek2021deep,
  title = {Deep learning-based defect detection of metal parts: evaluating current methods in
           complex conditions},
  author = {Jezek, Stepan and Jonak, Martin and Burget, Radim and Dvorak, Pavel and Skotak, Milos},
  booktitle = {International Congress on Ultra Modern Telecommunications and Control Systems and
               Workshops (ICUMT)},
  pages = {66--71}, year = {2021},
  doi = {10.1109/ICUMT54235.2021.9631567}
}
"""


class Mpdd(PublishedBuilder):
  """MPDD, in the layout of MVTec AD."""

  name = 'mpdd'
  title = 'MPDD'
  description = 'Photographs of 6 painted metal parts, in several positions and lights.'
  homepage = 'https://github.com/stepanje/MPDD'
  license = 'CC BY-NC-SA 4.0'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    'bracket_black': Counts(289, 32, 47),
    'bracket_brown': Counts(185, 26, 51),
    'bracket_white': Counts(110, 30, 30),
    'connector': Counts(128, 30, 14),
    'metal_plate': Counts(54, 26, 71),
    'tubes': Counts(122, 32, 69),
  }

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Returns the layout of `layout.scan` in each category."""
    return layout.scan(self.category_folder(root))
