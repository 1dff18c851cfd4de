"""Figures of matplotlib as files."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_DATES = {'svg': 'Date', 'pdf': 'CreationDate'}


def encode(figure: 'Figure', suffix: str, dpi: int = 150) -> bytes:
  """Returns the contents of a file of a kind: 'png', 'svg' or 'pdf'; always the same for a figure.

  Dates and random names would make each drawing of a figure another file.
  """
  import matplotlib  # all commands wait for what this file imports

  encoded = io.BytesIO()
  without = {_DATES[suffix]: None} if suffix in _DATES else None
  with matplotlib.rc_context({'svg.hashsalt': 'patch_svdd_jax'}):
    figure.savefig(encoded, format=suffix, dpi=dpi, metadata=without)
  return encoded.getvalue()
