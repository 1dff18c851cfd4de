"""The page of a comparison of runs."""

import math

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.reporting import comparison_plots, comparison_tables
from patch_svdd_jax.reporting.html import rendering
from patch_svdd_jax.reporting.html.evaluated import HEADLINES
from patch_svdd_jax.reporting.html.page import Compared, Headline
from patch_svdd_jax.reporting.run_comparison import AUPIMO, Comparison

TEMPLATE = 'comparison.html.jinja'


def render(comparison: Comparison) -> str:
  """Returns the page's HTML."""
  return rendering.fill(
    TEMPLATE,
    comparison=comparison,
    contents=list(comparison_tables.contents(comparison)),
    notes=comparison_tables.notes(comparison),
    headlines=headlines(comparison),
    charts=comparison_plots.make_charts(comparison),
    tables=comparison_tables.figures_tables(comparison),
    tests=comparison_tables.paired_table(comparison),
    explanations=comparison_tables.explanations(comparison),
  )


def headlines(comparison: Comparison) -> list[Headline]:
  """Returns the figures of the first run that come first, with the others'; means of categories."""
  first, *others = comparison.figures[comparison.whole]
  return [
    Headline(
      metric,
      TITLES[metric],
      first[metric],
      [
        Compared(name, figures[metric])
        for name, figures in zip(comparison.names[1:], others, strict=True)
      ],
    )
    for metric in dict.fromkeys((*HEADLINES, AUPIMO))
    if not math.isnan(first[metric])
  ]
