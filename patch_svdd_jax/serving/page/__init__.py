"""The page for people, one self-contained file: nothing of it comes from elsewhere."""

import base64
import hashlib
import importlib.resources
from typing import NamedTuple

import numpy as np

from patch_svdd_jax.reporting import overlays

_STOPS = 17
# As one script: they share their names, and run in this order.
SCRIPTS = (
  'script.js',
  'additions.js',
  'region_mask.js',
  'region_view.js',
  'region_editor.js',
  'region_saving.js',
)


class StaticPage(NamedTuple):
  """The page, and what its script and its style are recognised by, as 'sha256-...'."""

  html: str
  script_hash: str
  style_hash: str


def assemble() -> StaticPage:
  """Returns the page out of its parts, with the colour scale of reports."""
  parts = importlib.resources.files(__package__)

  def read(name: str) -> str:
    return parts.joinpath(name).read_text('utf-8')

  markup, style, script = read('page.html'), read('style.css'), ''.join(map(read, SCRIPTS))
  style = style.replace('COLOUR_SCALE', _gradient())
  html = markup.replace('STYLE', style).replace('SCRIPT', script)
  return StaticPage(html, _hash(script), _hash(style))


def _gradient() -> str:
  colours = overlays.colour(np.linspace(0, 1, _STOPS), (0.0, 1.0))
  return ', '.join(f'#{red:02x}{green:02x}{blue:02x}' for red, green, blue in colours)


def _hash(text: str) -> str:
  return f'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'
