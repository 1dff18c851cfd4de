"""AutoVI as a TFDS builder."""

import pathlib

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import Counts, PublishedBuilder

_CITATION = """
@article{carvalho2024autovi,
  title = {Detecting visual anomalies in an industrial environment: Unsupervised methods put to the
           test on the {AutoVI} dataset},
  author = {Carvalho, Philippe and Lafou, Meriem and Durupt, Alexandre and Leblanc, Antoine and
            Grandvalet, Yves},
  journal = {Computers in Industry}, year = {2024},
  doi = {10.1016/j.compind.2024.104151}
}
"""


class AutoVi(PublishedBuilder):
  """AutoVI 1.0.0: parts of cars on an assembly line, structural and logical anomalies.

  <category>/train/good
  <category>/test/<type>; type 'good' is normal
  <category>/ground_truth/<type>/<stem>/0000.png, ...: their union is the mask

  Each category is a zip archive of its own, which holds its folder. The layout is that of the
  documentation (Zenodo, anomalib); no official download has been read here. The counts are those of
  the paper (Carvalho et al. 2024). Where others count otherwise in the download, of pipe_clip and
  pipe_staple, they are not checked. How much of a region of a logical anomaly has to be found
  (defects_config.json) is not read.
  """

  name = 'autovi'
  title = 'AutoVI'
  description = 'Photographs of 6 places of cars on an assembly line, from moving parts.'
  homepage = 'https://doi.org/10.5281/zenodo.10459003'
  license = 'CC BY-NC-SA 4.0, Renault Group'
  citation = _CITATION
  counts = {  # noqa: RUF012, a table
    'engine_wiring': Counts(285, 285, 322),
    'pipe_clip': Counts(195, None, None),
    'pipe_staple': Counts(None, None, None),
    'tank_screw': Counts(318, 318, 95),
    'underbody_pipes': Counts(161, 161, 184),
    'underbody_screw': Counts(373, 374, 18),
  }

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images, whose masks fill a folder of the image's name."""
    category = self.category_folder(root)
    return layout.Layout(
      train=layout.items(category, 'train/good'), test=layout.items_with_mask_folders(category)
    )
