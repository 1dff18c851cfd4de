"""The magnetic tile defects (MT) as a TFDS builder."""

import pathlib
import re
from collections.abc import Iterable

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.published import WHOLE, Counts, PublishedBuilder
from patch_svdd_jax.errors import UserError

FREE = 'MT_Free'
TEST_EVERY = 5  # each fifth tile without defect is a test image
_CITATION = """
@article{huang2020surface,
  title = {Surface defect saliency of magnetic tile},
  author = {Huang, Yibin and Qiu, Congying and Yuan, Kui},
  journal = {The Visual Computer},
  volume = {36}, pages = {85--96}, year = {2020},
  doi = {10.1007/s00371-018-1588-5}
}
"""


class MagneticTile(PublishedBuilder):
  """Magnetic tile defects: blowhole, break, crack, fray, uneven.

  MT_Free/Imgs/exp<exposure>_num_<frame>.jpg: normal
  MT_Blowhole/Imgs, ...: the same; the mask has the image's name and ends in .png

  There is no official split. Here all defective images are tested, and each fifth of the tiles
  without defect, see `split_free`. Only the defective images are counted and checked.
  """

  name = 'magnetic_tile'
  title = 'Magnetic tile defects'
  description = 'Photographs of magnetic tiles in several exposures, each cut to its tile.'
  homepage = 'https://github.com/abin24/Magnetic-tile-defect-datasets.'
  license = 'none stated'
  citation = _CITATION
  counts = {WHOLE: Counts(None, None, 392)}  # noqa: RUF012, a table

  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the images: those in JPEG, beside which the masks stand."""
    train, good = split_free(_photographs(root, FREE))
    kinds = [kind for kind in layout.folders(root) if kind.startswith('MT_') and kind != FREE]
    defects = [item for kind in kinds for item in _photographs(root, kind)]
    return layout.Layout(train, (*good, *defects))


def split_free(
  items: Iterable[layout.Item],
) -> tuple[tuple[layout.Item, ...], tuple[layout.Item, ...]]:
  """Divides the images without defect into those to train on and those to test, by tiles.

  The names say that a tile was photographed up to six times in a row, with exposures of growing
  number: frames in their order belong to another tile as soon as that number does not grow. All
  images of a tile are kept together, so that none is tested whose tile is trained on.
  """
  train: list[layout.Item] = []
  test: list[layout.Item] = []
  tile = -1
  before = float('inf')
  for item in sorted(items, key=_frame_and_exposure):
    _, exposure = _frame_and_exposure(item)
    tile += exposure <= before
    before = exposure
    (test if tile % TEST_EVERY == TEST_EVERY - 1 else train).append(item)
  return tuple(train), tuple(test)


def _photographs(root: pathlib.Path, kind: str) -> list[layout.Item]:
  defect = layout.GOOD if kind == FREE else kind.removeprefix('MT_').lower()

  def mask(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
    path = image.with_suffix('.png')
    return (path,) if kind != FREE and path.exists() else ()

  items = layout.items(root, f'{kind}/Imgs', defect, mask)
  return [item for item in items if item.image.suffix.lower() == '.jpg']


def _frame_and_exposure(item: layout.Item) -> tuple[int, int]:
  numbers = re.fullmatch(r'exp(\d+)_num_(\d+)', item.image.stem)
  if numbers is None:
    raise UserError(f'{item.image}: is not named exp<exposure>_num_<frame>.jpg; restore its name')
  return int(numbers[2]), int(numbers[1])
