"""What is shown beside the paper's figures, and the means over the categories of each column."""

import csv

import numpy as np
import pytest
from scipy import stats

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.experiments import paper_results, reproduction
from patch_svdd_jax.reporting.table import markdown

FAILED = {'error': 'it is raining'}


def entry(image, pixel):
  return {'status': 'measured', 'image_auroc': image, 'pixel_auroc': pixel}


def placed(entries):
  return reproduction.by_category(entries, list(paper_results.RESULTS), 'mvtec')


def means(entries):
  rows = reproduction.beside_paper(placed(entries))
  return [row for row in rows if row['name'].startswith('mean')]


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

  assert (of_authors['name'], of_authors['categories']) == ('mean of 3 (authors)', names)
  assert_mean(of_authors['figures']['authors'], values.mean(axis=0))
  assert_mean(of_authors['figures']['paper'], paper_mean(names))
  assert of_authors['figures']['trained'] is None

  assert (of_trained['name'], of_trained['categories']) == ('mean of 1 (trained)', ['wood'])
  assert_mean(of_trained['figures']['trained'], (0.25, 0.75))
  assert_mean(of_trained['figures']['authors'], values[2])
  assert_mean(of_trained['figures']['paper'], paper_mean(['wood']))

  assert (of_all['name'], len(of_all['categories'])) == ('mean of all 15', 15)
  assert_mean(of_all['figures']['paper'], paper_mean(paper_results.RESULTS))
  assert of_all['figures']['authors'] is of_all['figures']['trained'] is None


def test_columns_of_the_same_categories_share_a_row():
  values, entries = drawn(list(paper_results.RESULTS), 'trained')
  alone = {f'screw/{column}': entries['screw/trained'] for column in reproduction.COLUMNS}
  assert means(alone)[0]['name'] == 'mean of 1 (authors, trained)'
  [found] = means(entries)
  assert_mean(found['figures']['trained'], values.mean(axis=0))
  assert found['figures']['authors'] is None


def test_a_metric_that_needs_both_classes_has_no_mean():
  entries = {'screw/authors': entry(None, 0.9), 'wood/authors': entry(0.5, 0.7)}
  [found, _] = means(entries)
  assert found['figures']['authors'] == {'image_auroc': None, 'pixel_auroc': pytest.approx(0.8)}
  assert '| mean of 2 (authors) |   0.889 / 0.932 |             - / 0.800 |' in (
    reproduction.render(placed(entries), '')
  )


def test_seeds_of_a_category_are_one_figure_with_an_interval():
  values = np.random.default_rng(0).random((2, 3, 2))
  names = ['screw', 'bottle']
  entries = {
    f'{name}/{reproduction.run_name("trained", seed)}': entry(*values[i, seed].tolist())
    for i, name in enumerate(names)
    for seed in range(3)
  }
  found = reproduction.summary(placed(entries))['trained']
  assert list(found) == ['bottle', 'screw', 'mean']
  for measured, name in ((values[0], 'screw'), (values[1], 'bottle'), (values.mean(0), 'mean')):
    for metric, each in zip(reproduction.METRICS, measured.T, strict=True):
      low, high = stats.t.interval(0.95, 2, each.mean(), stats.sem(each))
      assert found[name][metric] == {
        'mean': pytest.approx(each.mean()),
        'half_width': pytest.approx((high - low) / 2),
        'seeds': 3,
      }
    assert found[name]['aupro_30']['mean'] is None
  # A seed that a category lacks is none of the mean's.
  del entries['screw/trained_2']
  found = reproduction.summary(placed(entries))['trained']
  assert found['mean']['image_auroc']['mean'] == pytest.approx(values[:, :2, 0].mean())
  assert (found['mean']['image_auroc']['seeds'], found['bottle']['image_auroc']['seeds']) == (2, 3)


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

All metrics of the main map, authors' weights here:

{full}

Trained here: `mine`.

No data: bottle.

No weights of the authors: cable.

Failed:

- screw, trained here (trained): it is raining"""


def test_the_table_says_why_there_are_no_figures():
  categories = placed(ENTRIES)
  dashes = ['-'] * (len(TITLES) - 2)
  rows = [[name, seeds, '0.100', '0.333'] for name, seeds in (('screw', '1'), ('mean of 1', ''))]
  order = ['image_auroc', 'pixel_auroc', *(TITLES.keys() - {'image_auroc', 'pixel_auroc'})]
  cells = [dict(zip(order, [*row[2:], *dashes], strict=True)) for row in rows]
  full = markdown(
    ['category', 'seeds', *TITLES.values()],
    [
      [*row[:2], *(found[metric] for metric in TITLES)]
      for row, found in zip(rows, cells, strict=True)
    ],
  )
  assert reproduction.render(categories, 'mine') == SHOWN.format(full=full)
  failed = {'screw/trained': FAILED | {'status': 'failed'}}
  there = {name: each for name, each in ENTRIES.items() if each}
  assert reproduction.flat(categories) == there | failed


def test_csv_in_the_papers_order():
  text = reproduction.sheet(placed(ENTRIES)).to_csv()
  bottle, _, screw, mean = csv.DictReader(text.splitlines())
  assert (bottle['category'], screw['category']) == ('bottle', 'screw')
  assert (bottle['paper_image_auroc'], bottle['paper_pixel_auroc']) == ('0.986', '0.981')
  assert (bottle['authors_status'], bottle['authors_image_auroc']) == ('no data', '')
  assert float(screw['authors_pixel_auroc']) == float(mean['authors_pixel_auroc']) == 1 / 3
  assert (screw['authors_seeds'], screw['authors_pixel_auroc_half_width']) == ('1', '')
  assert (screw['trained_status'], screw['trained_image_auroc']) == ('failed', '')


def test_latex():
  entries = {
    f'a_b&c/{run}': entry(0.5, each) for run, each in (('trained', 0.2), ('trained_1', 0.4))
  }
  categories = reproduction.by_category(entries, [], 'folder')
  lines = reproduction.to_latex(categories).splitlines()
  assert lines[:2] == ['% trained here', rf'\begin{{tabular}}{{l{"r" * (1 + len(TITLES))}}}']
  [row] = [line for line in lines if line.startswith(r'a\_b\&c & 2 & 0.500 $\pm$ 0.000 & --')]
  assert r'& 0.300 $\pm$ 1.271 &' in row
  assert row.count(' & ') == 1 + len(TITLES)
  assert lines[-2:] == [r'\bottomrule', r'\end{tabular}']
