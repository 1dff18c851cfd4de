"""A report as one HTML file that needs nothing else: figures, curves, and the images by score.

`evaluated.make` gives the page of an evaluation, `predicted.make` that of images alone; `write`
makes a file of it.
"""

from patch_svdd_jax.reporting.html.page import Item, Page
from patch_svdd_jax.reporting.html.rendering import render, write

__all__ = ['Item', 'Page', 'render', 'write']
