"""Writes a comparison of runs into a folder."""

import pathlib

from patch_svdd_jax.reporting import comparison_plots, comparison_tables
from patch_svdd_jax.reporting.html import compared_runs, rendering
from patch_svdd_jax.reporting.run_comparison import Comparison
from patch_svdd_jax.system import figures, files

NAMES = tuple(f'compare.{suffix}' for suffix in ('md', 'csv', 'json', 'png', 'html'))


def write(folder: pathlib.Path, comparison: Comparison) -> None:
  """Writes all files, each of which appears whole or not at all.

  Raises:
    UserError: one cannot be written.
  """
  markdown, csv, json, png, html = (folder / name for name in NAMES)
  texts = {
    markdown: f'{comparison_tables.render(comparison)}\n',
    csv: comparison_tables.sheet(comparison).to_csv(),
  }
  for path, text in texts.items():
    # A name on disk need not be UTF-8.
    files.write(path, text.encode(errors='backslashreplace'))
  files.write_json(json, comparison_tables.to_json(comparison))
  files.write(png, figures.encode(comparison_plots.draw(comparison), 'png'))
  rendering.write_html(html, compared_runs.render(comparison))
