"""The configs of a checkout: they stand in its top-level configs/, and this file leads there.

No wheel contains it: in an installed package, configs/ itself stands here.
"""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from configs import dataset, default, folder, laptop, mvtec, textures

  __all__ = ['dataset', 'default', 'folder', 'laptop', 'mvtec', 'textures']

_CHECKOUT = pathlib.Path(__file__).parents[2]
# Beside a copy of the package anywhere else, configs/ would be somebody else's.
if (_CHECKOUT / 'setup.cfg').is_file():
  __path__ = [str(_CHECKOUT / 'configs')]
