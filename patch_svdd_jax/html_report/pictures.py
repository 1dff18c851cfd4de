"""Pictures inside a page, as data URIs: an image's views, and the colour scale."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from patch_svdd_jax import report

SIZE = 256  # pixels, the longer side of a view
QUALITY = 80  # of WebP: what the eye does not see costs half of the page


class View(NamedTuple):
  """One picture of an image.

  Attributes:
    name: what it shows.
    uri: the picture.
    width, height: in pixels.
  """

  name: str
  uri: str
  width: int
  height: int


def views(
  image: np.ndarray, mask: np.ndarray | None, anomaly_map: np.ndarray, limits: tuple[float, float]
) -> list[View]:
  """The image, with its true outline where there is one, its map, and the map over it.

  Args:
    image: u8[H, W, 3], RGB.
    mask: bool[H, W], True where anomalous; None where nothing is to be outlined.
    anomaly_map: f[H, W].
    limits: (low, high) of the colour scale.
  """
  known = np.zeros(anomaly_map.shape, bool) if mask is None else mask
  panes = report.panes_of(image, known, anomaly_map, limits, SIZE)
  shown = {'image': panes.photo, 'ground truth': panes.outlined}
  shown |= {'anomaly map': panes.heat, 'overlay': panes.overlay}
  if mask is None:
    del shown['ground truth']
  return [View(name, encode(pane), pane.shape[1], pane.shape[0]) for name, pane in shown.items()]


def colour_scale() -> str:
  """The colours from the lowest to the highest value, a PNG of one row."""
  levels = np.linspace(0, 1, 256)[None]
  return encode(report.colour(levels, (0, 1)), 'png')


def encode(picture: np.ndarray, kind: str = 'webp') -> str:
  """The data URI of u8[H, W, 3]."""
  encoded = io.BytesIO()
  Image.fromarray(picture).save(encoded, kind, quality=QUALITY, method=2)
  return f'data:image/{kind};base64,{base64.b64encode(encoded.getbuffer()).decode()}'
