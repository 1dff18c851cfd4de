"""A report as one HTML file that needs nothing else: figures, curves, and the images by score.

`evaluated.make` gives the page of an evaluation. A page of images alone says what is known of them:

  items = [Item(name, image, anomaly_map, score, alarm=..., p_value=..., boxes=...), ...]
  write(path, Page(title, items, 'product', report.colour_limits(maps), threshold=...))
"""

from patch_svdd_jax.html_report.page import Box, Item, Page, Threshold
from patch_svdd_jax.html_report.rendering import render, write

__all__ = ['Box', 'Item', 'Page', 'Threshold', 'render', 'write']
