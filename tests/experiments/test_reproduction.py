"""What is shown beside the paper's figures, and the means over the categories of each column."""

import csv

import numpy as np
import pytest

from patch_svdd_jax.experiments import paper_results, reproduction

FAILED = {'error': 'it is raining'}


def entry(image, pixel):
  return {'status': 'measured', 'image_auroc': image, 'pixel_auroc': pixel}


def means(entries):
  return reproduction.means(reproduction.beside_paper(entries))


def drawn(names, column):
  """Figures of categories, f64[N, 2], and their entries."""
  values = np.random.default_rng(0).random((len(names), 2))
  entries = zip(names, values, strict=True)
  return values, {f'{name}/{column}': entry(*pair.tolist()) for name, pair in entries}


def paper_mean(names):
  return np.mean([paper_results.RESULTS[name] for name in names], axis=0)


def assert_mean(found, expected):
  assert list(found) == ['image_auroc', 'pixel_auroc']
  np.testing.assert_allclose(list(found.values()), expected, rtol=1e-12)


def test_each_column_is_compared_over_its_own_categories():
  names = ['cable', 'screw', 'wood']
  values, entries = drawn(names, 'authors')
  entries |= {'wood/trained': entry(0.25, 0.75), 'screw/trained': FAILED}
  entries['pill/authors'] = {'status': 'no data'}
  of_authors, of_trained, of_all = means(entries)

  assert (of_authors['name'], of_authors['categories']) == ('mean of 3 (authors)', tuple(names))
  assert_mean(of_authors['columns']['authors'], values.mean(axis=0))
  assert_mean(of_authors['columns']['paper'], paper_mean(names))
  assert of_authors['columns']['trained'] is None

  assert (of_trained['name'], of_trained['categories']) == ('mean of 1 (trained)', ('wood',))
  assert_mean(of_trained['columns']['trained'], (0.25, 0.75))
  assert_mean(of_trained['columns']['authors'], values[2])
  assert_mean(of_trained['columns']['paper'], paper_mean(['wood']))

  assert (of_all['name'], len(of_all['categories'])) == ('mean of all 15', 15)
  assert_mean(of_all['columns']['paper'], paper_mean(paper_results.RESULTS))
  assert of_all['columns']['authors'] is of_all['columns']['trained'] is None


def test_columns_of_the_same_categories_share_a_row():
  values, entries = drawn(list(paper_results.RESULTS), 'trained')
  alone = {f'screw/{column}': entries['screw/trained'] for column in reproduction.COLUMNS}
  assert means(alone)[0]['name'] == 'mean of 1 (authors, trained)'
  [found] = means(entries)
  assert_mean(found['columns']['trained'], values.mean(axis=0))
  assert found['columns']['authors'] is None


def test_a_metric_that_needs_both_classes_has_no_mean():
  [found, _] = means({'screw/authors': entry(None, 0.9), 'wood/authors': entry(0.5, 0.7)})
  assert found['columns']['authors'] == {'image_auroc': None, 'pixel_auroc': pytest.approx(0.8)}
  assert reproduction.figures(found['columns']['authors']) == '- / 0.800'


ENTRIES = {
  'screw/trained': FAILED,
  'screw/authors': entry(0.1, 1 / 3),
  'bottle/authors': {'status': 'no data'},
  'cable/authors': {'status': 'no weights'},
  'tile/authors': {},
}
SHOWN = """\
| category            | paper det / seg | authors' weights here | trained here |
| ------------------- | --------------: | --------------------: | -----------: |
| bottle              |   0.986 / 0.981 |               no data |            - |
| cable               |   0.903 / 0.968 |            no weights |            - |
| screw               |   0.813 / 0.957 |         0.100 / 0.333 |       failed |
| mean of 1 (authors) |   0.813 / 0.957 |         0.100 / 0.333 |            - |
| mean of all 15      |   0.921 / 0.957 |                     - |            - |

Image / pixel AUROC, of the product of the maps.

Trained here: `mine`.

No data: bottle.

No weights of the authors: cable.

Failed:

- screw, trained here: it is raining"""


def test_the_table_says_why_there_are_no_figures():
  categories = reproduction.beside_paper(ENTRIES)
  assert reproduction.render(categories, 'mine') == SHOWN
  failed = {'screw/trained': FAILED | {'status': 'failed'}}
  there = {name: each for name, each in ENTRIES.items() if each}
  assert reproduction.flat(categories) == there | failed


def test_csv_in_the_papers_order():
  text = reproduction.sheet(reproduction.beside_paper(ENTRIES)).to_csv()
  bottle, _, screw = csv.DictReader(text.splitlines())
  assert (bottle['category'], screw['category']) == ('bottle', 'screw')
  assert (bottle['paper_image_auroc'], bottle['paper_pixel_auroc']) == ('0.986', '0.981')
  assert (bottle['authors_status'], bottle['authors_image_auroc']) == ('no data', '')
  assert float(screw['authors_pixel_auroc']) == 1 / 3
  assert (screw['trained_status'], screw['trained_image_auroc']) == ('failed', '')
