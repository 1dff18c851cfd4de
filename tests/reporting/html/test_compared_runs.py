"""The page of a comparison, of two evaluations as `eval` writes them."""

import re

import pytest

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.reporting.html.rendering import digest
from patch_svdd_jax.reporting.measured_run import ALONE


def test_figures_are_those_of_the_evaluations(comparison, evaluation, other):
  for run, each in enumerate((evaluation, other)):
    expected = each.maps['product']
    assert comparison.figures[ALONE][run] == pytest.approx(expected, nan_ok=True)


def test_everything_stands_in_the_page(comparison, compared, parse):
  parsed = parse(compared)
  figures = comparison.figures[ALONE]
  shown = [found['data-metric'] for found, _ in parsed.all('div', class_='headline')]
  assert shown[:2] == ['image_auroc', 'pixel_auroc']
  charts = [found['data-chart'] for found, _ in parsed.all('figure', class_='chart')]
  assert charts == ['intervals', 'aupimo', 'image_rank']
  assert {'figures-1', 'tests'} == {found['data-table'] for found, _ in parsed.all('table')}
  texts = [text for _, text in parsed.all('td')]
  for metric in TITLES:
    assert f'{figures[1][metric]:.4f}'.replace('nan', '-') in texts


def test_names_are_text_and_the_policy_lets_nothing_else_in(compared, parse):
  parsed = parse(compared)
  assert '<b>' not in compared
  assert not [tag for tag, _ in parsed.elements if tag == 'script']
  [(found, _)] = parsed.all('meta', http_equiv='Content-Security-Policy')
  style = re.search('<style>(.*?)</style>', compared, re.DOTALL)[1]
  assert f"style-src '{digest(style)}'" in found['content']
  assert 'script-src' not in found['content']
  assert "default-src 'none'" in found['content']
