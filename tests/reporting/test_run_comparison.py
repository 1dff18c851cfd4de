"""A comparison's numbers, against plain definitions on what was measured; tables and files."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.evaluation.paired_tests import resampled
from patch_svdd_jax.reporting import comparison_files, comparison_plots, measured_run
from patch_svdd_jax.reporting.comparison_tables import (
  explanations,
  figures_tables,
  notes,
  paired_table,
  render,
  sheet,
)
from patch_svdd_jax.reporting.measured_run import ALONE
from patch_svdd_jax.reporting.run_comparison import AUPIMO, RANK, compare
from tests.support import measured_runs
from tests.support.measured_runs import NAMES

CATEGORIES = ('bottle', 'screw')
LABELS = np.array(['hole' in name for name in NAMES])


def contents_of(run, category=0, **changes):
  contents = measured_runs.contents(10 * run + category, 0.5 + run)
  contents['maps']['product'] |= changes
  return contents


def runs_alone(folder, *contents, **settings):
  folders = [
    measured_runs.write(folder / str(number), each, **settings)
    for number, each in enumerate(contents)
  ]
  return [measured_run.read(each, {ALONE: each}) for each in folders]


def runs_of_all(folder, *runs):
  found = []
  for number, contents in enumerate(runs):
    place = measured_runs.write_all(folder / str(number), contents)
    found.append(measured_run.read(place, {category: place / category for category in contents}))
  return found


@pytest.fixture
def two(tmp_path):
  return [contents_of(0), contents_of(1)], runs_alone(tmp_path, contents_of(0), contents_of(1))


@pytest.fixture
def three_of_all(tmp_path):
  contents = [
    {category: contents_of(run, index) for index, category in enumerate(CATEGORIES)}
    for run in range(3)
  ]
  return contents, runs_of_all(tmp_path, *contents)


def values(contents, key):
  return np.array([contents['images'][name][key] for name in NAMES], np.float64)


def test_two_runs_are_paired_by_image(two):
  contents, runs = two
  found = compare(runs, 50, seed=3)
  assert found.title == '1 against 0'
  assert [(test.category, test.run, test.measure) for test in found.tests] == [
    (ALONE, 1, AUPIMO),
    (ALONE, 1, RANK),
  ]
  aupimo, rank = found.tests
  expected = np.subtract(*(values(each, 'aupimo') for each in contents[::-1]))
  np.testing.assert_array_equal(aupimo.differences, expected)
  assert aupimo.found.images == 17  # of 18 defects one has no mask
  known = expected[~np.isnan(expected)]
  assert aupimo.found.p_value == stats.wilcoxon(known, method='exact').pvalue
  ranks = [stats.rankdata(values(each, 'score')) for each in contents]
  expected = np.where(LABELS, 1, -1) * np.subtract(ranks[1], ranks[0]) / 29
  np.testing.assert_allclose(rank.differences, expected, atol=1e-15)
  smaller, larger = sorted(test.found.p_value for test in found.tests)
  corrected = sorted(test.corrected for test in found.tests)
  assert corrected == [min(2 * smaller, 1), max(2 * smaller, larger)]


def test_the_interval_is_that_of_a_plain_loop(two):
  contents, runs = two
  found = compare(runs, 50, seed=3)
  differences = [
    roc_auc_score(np.repeat(LABELS, counts), np.repeat(values(contents[1], 'score'), counts))
    - roc_auc_score(np.repeat(LABELS, counts), np.repeat(values(contents[0], 'score'), counts))
    for counts in np.concatenate(list(resampled(LABELS, 50, [3, 0])))
  ]
  assert found.intervals[ALONE, 1] == pytest.approx(np.quantile(differences, [0.025, 0.975]))
  assert found.difference(ALONE, 1, 'image_auroc') == pytest.approx(
    roc_auc_score(LABELS, values(contents[1], 'score'))
    - roc_auc_score(LABELS, values(contents[0], 'score'))
  )


def test_categories_have_a_mean_and_all_images_a_test(three_of_all):
  contents, runs = three_of_all
  found = compare(runs, 40, seed=0)
  assert list(found.figures) == [*CATEGORIES, 'all']
  for number, run in enumerate(contents):
    for metric in TITLES:
      each = [run[category]['maps']['product'][metric] for category in CATEGORIES]
      assert found.figures['all'][number][metric] == pytest.approx(np.mean(each))
  samples = [
    [
      roc_auc_score(np.repeat(LABELS, counts), np.repeat(values(run[category], 'score'), counts))
      for counts in np.concatenate(list(resampled(LABELS, 40, [0, index])))
    ]
    for run in (contents[0], contents[2])
    for index, category in enumerate(CATEGORIES)
  ]
  gained = np.mean(samples[2:], axis=0) - np.mean(samples[:2], axis=0)
  assert found.intervals['all', 2] == pytest.approx(np.quantile(gained, [0.025, 0.975]))
  tests = {(test.run, test.measure, test.category): test for test in found.tests}
  assert len(tests) == 2 * 2 * 3
  for run in (1, 2):
    for measure in (AUPIMO, RANK):
      both = [tests[run, measure, category].differences for category in CATEGORIES]
      np.testing.assert_array_equal(tests[run, measure, 'all'].differences, np.concatenate(both))
  made = sorted(test.found.p_value for test in found.tests)
  assert min(test.corrected for test in found.tests) == pytest.approx(min(1, 12 * made[0]))


def test_the_tables_of_two_runs(two):
  contents, runs = two
  found = compare(runs, 50, seed=3)
  [(title, table)] = figures_tables(found).items()
  lines = table.to_markdown().splitlines()
  assert title == 'Figures'
  assert lines[0].split('|')[1:-1] == [
    ' metric      ', '      0 ', '      1 ', '                 difference ',
  ]  # fmt: skip
  before, after = (each['maps']['product']['image_auroc'] for each in contents)
  low, high = found.intervals[ALONE, 1]
  assert f'{before:.4f} | {after:.4f} | {after - before:+.4f} [{low:+.4f}, {high:+.4f}]' in lines[2]
  assert '[' not in ''.join(lines[3:])
  lines = paired_table(found).to_markdown().splitlines()
  assert [line.split('|')[1].strip() for line in lines[2:]] == ['AUPIMO', 'rank of the image score']
  assert 'category' not in lines[0]
  assert ' run ' not in lines[0]
  assert notes(found) == []
  text = render(found)
  assert text.startswith('# 1 against 0\n\n- 30 test images: 12 normal, 18 anomalous\n- 0: ')
  assert '50 samples of the test images' in text
  assert 'corrected for the 2 tests above' in text


def test_the_tables_of_categories(three_of_all):
  found = compare(three_of_all[1], 5, seed=0)
  tables = figures_tables(found)
  assert list(tables) == ['Mean of 2 categories', *TITLES.values()]
  lines = tables['AUPIMO'].to_markdown().splitlines()
  assert [line.split('|')[1].strip() for line in lines[2:]] == [*CATEGORIES, 'mean']
  assert [cell.strip() for cell in lines[0].split('|')[2:-1]] == [
    '0', '1', '2', '1: difference', '2: difference',
  ]  # fmt: skip
  header = paired_table(found).to_markdown().splitlines()[0]
  assert [cell.strip() for cell in header.split('|')[2:4]] == ['category', 'run']


def test_the_sheet_has_everything(three_of_all):
  found = compare(three_of_all[1], 5, seed=0)
  rows = list(csv.DictReader(io.StringIO(sheet(found).to_csv())))
  assert len(rows) == 3 * 3 * len(TITLES) + 3 * 2
  by_key = {(row['category'], row['run'], row['measure']): row for row in rows}
  assert len(by_key) == len(rows)
  run = found.runs[2].place
  row = by_key['screw', run, 'image_auroc']
  assert float(row['value']) == found.figures['screw'][2]['image_auroc']
  assert float(row['difference']) == found.difference('screw', 2, 'image_auroc')
  assert (float(row['low']), float(row['high'])) == found.intervals['screw', 2]
  [test] = [
    test for test in found.tests if (test.category, test.run, test.measure) == ('all', 2, AUPIMO)
  ]
  row = by_key['all', run, 'aupimo']
  assert float(row['value']) == found.figures['all'][2]['aupimo']
  assert (float(row['p_value']), float(row['p_holm'])) == (test.found.p_value, test.corrected)
  assert by_key['all', run, 'image_rank']['value'] == ''
  assert by_key['all', found.runs[0].place, 'aupimo']['difference'] == ''


def test_equal_runs_have_dashes_for_p(tmp_path):
  found = compare(runs_alone(tmp_path, contents_of(0), contents_of(0)), 20, seed=0)
  assert [test.found.p_value for test in found.tests] == pytest.approx([np.nan] * 2, nan_ok=True)
  lines = paired_table(found).to_markdown().splitlines()[2:]
  assert all(line.endswith('-  |') or line.split('|')[-2].strip() == '-' for line in lines)
  assert found.intervals[ALONE, 1] == (0, 0)
  assert len(explanations(found)) == 2  # nothing was corrected


@pytest.mark.parametrize('kept', ['good', 'hole'])
def test_one_class_alone_has_dashes(tmp_path, kept):
  names = [name for name in NAMES if kept in name]
  contents = [contents_of(0), contents_of(1)]
  for each in contents:
    each['images'] = {name: image | {'aupimo': None} for name, image in each['images'].items()}
    each['images'] = {name: each['images'][name] for name in names}
    each['maps']['product'] = dict.fromkeys(TITLES)
  found = compare(runs_alone(tmp_path, *contents), 20, seed=0)
  assert np.isnan(found.intervals[ALONE, 1]).all()
  lines = figures_tables(found)['Figures'].to_markdown().splitlines()[2:]
  assert all([cell.strip() for cell in line.split('|')[2:5]] == ['-'] * 3 for line in lines)
  assert np.isnan(found.tests[0].found.p_value)
  assert 'nan' not in render(found)
  assert 'nan' not in sheet(found).to_csv()
  assert len(comparison_plots.draw(found).axes) == 3


def test_a_category_without_a_figure_leaves_the_mean_open(tmp_path):
  runs = runs_of_all(
    tmp_path,
    *(
      {'a': contents_of(run, 0, aupimo=None), 'b': contents_of(run, 1, image_auroc=None)}
      for run in range(2)
    ),
  )
  found = compare(runs, 20, seed=0)
  assert np.isnan(found.figures['all'][1]['aupimo'])
  assert not np.isnan(found.figures['all'][1]['pixel_ap'])


def test_what_else_differs_is_said(tmp_path):
  one = contents_of(0)
  [first] = runs_alone(tmp_path / 'a', one)
  other = contents_of(1)
  other['main_map'] = 'k64'
  other['maps'] = {'k64': other['maps']['product']}
  [second] = runs_alone(tmp_path / 'b', other, size=(32, 48))
  found = compare([first, second], 5, seed=0)
  assert [note.partition(':')[0] for note in notes(found)] == [
    'The runs have different main maps',
    'The maps are of different sizes',
  ]
  assert '(map k64, 48 x 32)' in render(found)


def test_the_files(two, tmp_path):
  contents, runs = two
  found = compare(runs, 50, seed=3)
  comparison_files.write(tmp_path / 'out', found)
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
    comparison_files.NAMES
  )
  assert (tmp_path / 'out/compare.md').read_text() == f'{render(found)}\n'
  assert (tmp_path / 'out/compare.csv').read_text() == sheet(found).to_csv()
  assert (tmp_path / 'out/compare.png').read_bytes().startswith(b'\x89PNG')
  kept = json.loads((tmp_path / 'out/compare.json').read_text())
  assert (kept['resamples'], kept['seed']) == (50, 3)
  assert [each['run'] for each in kept['runs']] == [run.place for run in runs]
  assert kept['runs'][1]['figures'][ALONE] == contents[1]['maps']['product']
  assert kept['runs'][1]['image_auroc_interval'][ALONE] == list(found.intervals[ALONE, 1])
  aupimo = kept['tests'][0]
  assert list(aupimo['differences']) == NAMES
  assert aupimo['differences'][NAMES[0]] is None
  assert aupimo['p_holm'] == found.tests[0].corrected


def test_the_figure_shows_every_run_and_image(three_of_all):
  found = compare(three_of_all[1], 5, seed=0)
  intervals, aupimo, ranks = comparison_plots.draw(found).axes
  assert [text.get_text() for text in intervals.get_yticklabels()] == [*CATEGORIES, 'mean']
  assert intervals.get_legend_handles_labels()[1] == ['1', '2']
  for panel, measure, images in ((aupimo, AUPIMO, 34), (ranks, RANK, 60)):
    tests = [test for test in found.tests if (test.measure, test.category) == (measure, 'all')]
    labels = [f'{t.run}: {t.found.better} better, {t.found.worse} worse' for t in tests]
    handles, shown = panel.get_legend_handles_labels()
    assert shown == labels
    for line, test in zip(handles, tests, strict=True):
      assert len(line.get_ydata()) == images
      np.testing.assert_array_equal(
        line.get_ydata(), sorted(test.differences[~np.isnan(test.differences)], reverse=True)
      )
