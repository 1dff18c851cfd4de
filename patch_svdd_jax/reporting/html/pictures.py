"""Pictures inside a page, as data URIs: an image's views, and the colour scale."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from patch_svdd_jax.reporting import overlays

SIZE = 256  # pixels, the longer side of a view
TRUTH = 'ground truth'
QUALITY = 80  # of WebP: what the eye does not see costs half of the page


class View(NamedTuple):
  """One picture of an image, or a text in its place.

  Attributes:
    name: what it shows.
    uri: the picture; '' where there is none.
    width, height: of it, in pixels.
    text: what to say instead.
  """

  name: str
  uri: str = ''
  width: int = 0
  height: int = 0
  text: str = ''


def views(
  image: np.ndarray,
  truth: np.ndarray | str | None,
  anomaly_map: np.ndarray,
  limits: tuple[float, float],
  region: np.ndarray | None = None,
) -> list[View]:
  """Returns the image, what is known of its defects, its map, and the map over it.

  Args:
    image: u8[H, W, 3], RGB.
    truth: bool[H, W], True where anomalous, which is outlined; or a word in its place; None where
      nothing is to be said of it.
    anomaly_map: f[H, W].
    limits: (low, high) of the colour scale.
    region: bool[H, W], of interest, see `overlays.panes_of`.
  """
  mask = truth if isinstance(truth, np.ndarray) else np.zeros(anomaly_map.shape, bool)
  panes = overlays.panes_of(image, mask, anomaly_map, limits, SIZE, region)
  shown = [picture('image', panes.photo)]
  if isinstance(truth, str):
    shown.append(View(TRUTH, text=truth))
  elif truth is not None:
    shown.append(picture(TRUTH, panes.outlined))
  return [*shown, picture('anomaly map', panes.heat), picture('overlay', panes.overlay)]


def picture(name: str, pane: np.ndarray) -> View:
  """Returns a view of u8[H, W, 3]."""
  return View(name, encode(pane), pane.shape[1], pane.shape[0])


def colour_scale() -> str:
  """Returns the colours from the lowest to the highest value, a PNG of one row."""
  levels = np.linspace(0, 1, 256)[None]
  return encode(overlays.colour(levels, (0, 1)), 'png')


def encode(picture: np.ndarray, kind: str = 'webp') -> str:
  """Returns the data URI of u8[H, W, 3]."""
  encoded = io.BytesIO()
  Image.fromarray(picture).save(encoded, kind, quality=QUALITY, method=2)
  return f'data:image/{kind};base64,{base64.b64encode(encoded.getbuffer()).decode()}'
