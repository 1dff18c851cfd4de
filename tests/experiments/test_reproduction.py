"""Means over the same categories of each column, and the lines of the CSV file."""

import csv

import numpy as np
import pytest

from patch_svdd_jax.experiments import paper_results, reproduction

FAILED = {'status': 'failed', 'error': 'it is raining'}


def entry(image, pixel):
  return {'status': 'measured', 'image_auroc': image, 'pixel_auroc': pixel}


def drawn(names, seed=0):
  """Figures of categories, f64[N, 2], and their entries."""
  values = np.random.default_rng(seed).random((len(names), 2))
  return values, {name: entry(*pair.tolist()) for name, pair in zip(names, values, strict=True)}


def paper_mean(names):
  return np.mean([paper_results.RESULTS[name] for name in names], axis=0)


def assert_mean(found, expected):
  assert list(found) == ['image_auroc', 'pixel_auroc']
  np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_each_column_is_compared_over_its_own_categories():
  names = ['cable', 'screw', 'wood']
  values, entries = drawn(names)
  measured = {name: {'authors': each} for name, each in entries.items()}
  measured['wood']['trained'] = entry(0.25, 0.75)
  measured['screw']['trained'] = FAILED
  measured['pill'] = {'authors': {'status': 'no data'}}
  of_authors, of_trained, of_all = reproduction.means(measured)

  assert (of_authors.name, of_authors.categories) == ('mean of 3 (authors)', tuple(names))
  assert_mean(of_authors.columns['authors'], values.mean(axis=0))
  assert_mean(of_authors.columns['paper'], paper_mean(names))
  assert of_authors.columns['trained'] is None

  assert (of_trained.name, of_trained.categories) == ('mean of 1 (trained)', ('wood',))
  assert_mean(of_trained.columns['trained'], (0.25, 0.75))
  assert_mean(of_trained.columns['authors'], values[2])
  assert_mean(of_trained.columns['paper'], paper_mean(['wood']))

  assert (of_all.name, len(of_all.categories)) == ('mean of all 15', 15)
  assert_mean(of_all.columns['paper'], paper_mean(paper_results.RESULTS))
  assert of_all.columns['authors'] is of_all.columns['trained'] is None


def test_columns_of_the_same_categories_share_a_row():
  measured = {'screw': {'authors': entry(0.8, 0.9), 'trained': entry(0.6, 0.7)}}
  found = reproduction.means(measured)
  assert [each.name for each in found] == ['mean of 1 (authors, trained)', 'mean of all 15']
  assert_mean(found[0].columns['trained'], (0.6, 0.7))


def test_all_categories_have_one_row():
  values, entries = drawn(list(paper_results.RESULTS))
  [found] = reproduction.means({name: {'trained': each} for name, each in entries.items()})
  assert_mean(found.columns['trained'], values.mean(axis=0))
  assert found.columns['authors'] is None


def test_a_metric_that_needs_both_classes_has_no_mean():
  measured = {'screw': {'authors': entry(None, 0.9)}, 'wood': {'authors': entry(0.5, 0.7)}}
  found = reproduction.means(measured)[0].columns['authors']
  assert found == {'image_auroc': None, 'pixel_auroc': pytest.approx(0.8)}


def test_without_any_figure_the_papers_mean_stands():
  [found] = reproduction.means({'screw': {'authors': FAILED}, 'wood': {}})
  assert found.name == 'mean of all 15'
  assert found.columns['authors'] is None


def test_csv_in_the_papers_order():
  measured = {
    'screw': {'trained': FAILED, 'authors': entry(0.1, 1 / 3)},
    'bottle': {'authors': {'status': 'no data'}},
  }
  bottle, screw = csv.DictReader(reproduction.to_csv(measured).splitlines())
  assert (bottle['category'], screw['category']) == ('bottle', 'screw')
  assert (bottle['paper_image_auroc'], bottle['paper_pixel_auroc']) == ('0.986', '0.981')
  assert (bottle['authors_status'], bottle['authors_image_auroc']) == ('no data', '')
  assert float(screw['authors_pixel_auroc']) == 1 / 3
  assert (screw['trained_status'], screw['trained_image_auroc']) == ('failed', '')
