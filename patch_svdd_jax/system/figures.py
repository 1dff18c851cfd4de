"""Figures of matplotlib as files."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def encode(figure: 'Figure', suffix: str, dpi: int = 150) -> bytes:
  """The contents of a file of a kind: 'png', 'svg' or 'pdf'."""
  encoded = io.BytesIO()
  figure.savefig(encoded, format=suffix, dpi=dpi)
  return encoded.getvalue()
