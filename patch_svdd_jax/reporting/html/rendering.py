"""From a page to one self-contained HTML file: nothing is loaded from elsewhere.

The page forbids it to itself, by a content security policy that names style and script by their
hashes. So what a file's name may smuggle in would not run, even if it were not escaped.
"""

import base64
import hashlib
import math
import pathlib
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.reporting import data_tables
from patch_svdd_jax.reporting.html import gallery, pictures
from patch_svdd_jax.reporting.html.page import Page
from patch_svdd_jax.reporting.table import cell
from patch_svdd_jax.system import files

TEMPLATE, STYLE, SCRIPT = 'report.html.jinja', 'report.css', 'report.js'


def write(path: pathlib.Path, page: Page) -> None:
  """Writes a page with `write_html`."""
  write_html(path, render(page))


def write_html(path: pathlib.Path, html: str) -> None:
  """Writes a page's HTML, which appears whole or not at all.

  Raises:
    UserError: it cannot be written.
  """
  # A file's name that is no text has a sign for it.
  files.write(path, html.encode('utf-8', 'replace'))


def render(page: Page, most_items: int = gallery.MOST_ITEMS) -> str:
  """Returns the HTML of a page whose gallery has `most_items` images at most."""
  shown = gallery.select(page.items, most_items)
  return fill(
    TEMPLATE,
    page=page,
    shown=shown,
    images=sum(map(len, page.scores.values())),
    types=gallery.types(shown),
    verdicts=gallery.verdicts(shown),
    tally=gallery.tally(page.scores, page.threshold) if page.threshold else (),
    scores=gallery.score_chart(page.scores, page.threshold) if page.scores else None,
    colour_scale=pictures.colour_scale(),
    scale_ticks=[float(value) for value in np.linspace(*page.limits, 5)],
    titles=metrics.TITLES,
    data_header=data_tables.HEADER,
    data_rows=[data_tables.row(group) for group in page.data.groups],
    weights=data_tables.WEIGHTS,
    script=Markup(read(SCRIPT)),  # it is ours, and stands in the page as it is
  )


def fill(template: str, **values: Any) -> str:
  """Returns the HTML of a template beside this file, with these values and all pages' style."""
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(read),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {'figure': figure, 'number': number, 'digest': digest, 'cell': cell}
  return environment.get_template(template).render(style=Markup(read(STYLE)), **values)


def read(name: str) -> str:
  """Returns a file beside this one."""
  return resources.files('patch_svdd_jax.reporting.html').joinpath(name).read_text('utf-8')


def digest(text: str) -> str:
  """Returns how a content security policy names what may stand in the page."""
  return 'sha256-' + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def figure(value: float) -> str:
  """Returns a metric with four digits; a dash where it is not defined."""
  return '\N{EN DASH}' if math.isnan(value) else f'{value:.4f}'


def number(value: float) -> str:
  """Returns a measured number with three digits, or all of those before the point."""
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'
