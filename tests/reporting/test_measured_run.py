"""What is read of runs, and which are refused."""

import json

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting import measured_run
from patch_svdd_jax.reporting.measured_run import ALONE, check_comparable, short_names
from tests.support import measured_runs
from tests.support.measured_runs import NAMES


def read(folder):
  return measured_run.read(folder, {ALONE: folder})


def test_figures_and_images_of_the_main_map(tmp_path):
  contents = measured_runs.contents(0)
  contents['maps']['k64'] = {'image_auroc': 0.0}
  contents['maps']['product'] |= {'pixel_ap': None}
  del contents['maps']['product']['aupro_5']
  found = read(measured_runs.write(tmp_path / 'run', contents))
  assert (found.place, found.main_map) == (f'{tmp_path}/run', 'product')
  assert found.sizes == {(16, 24)}
  figures, images = found.categories[ALONE]
  assert figures['image_auroc'] == contents['maps']['product']['image_auroc']
  assert str(figures['pixel_ap']) == str(figures['aupro_5']) == 'nan'
  assert list(images) == NAMES
  assert [image.anomalous for image in images.values()] == ['hole' in name for name in NAMES]
  assert str(images['test/good/000.png'].aupimo) == 'nan'
  assert images['test/hole/001.png'].aupimo == contents['images']['test/hole/001.png']['aupimo']


def test_one_detector_of_several_categories_is_as_one_of_each(tmp_path):
  each = {category: measured_runs.contents(seed) for seed, category in enumerate(('a', 'b'))}
  folder = measured_runs.write_all(tmp_path / 'all', each)
  apart = measured_run.read(folder, {category: folder / category for category in each})
  together = measured_runs.contents(0)
  together['per_category'] = {
    'product': {category: contents['maps']['product'] for category, contents in each.items()}
  }
  # As data.categories.combine names them.
  together['images'] = {
    f'{category}/{name}': image
    | {'defect': image['defect'] if 'good' in name else f'{category}/{image["defect"]}'}
    for category, contents in each.items()
    for name, image in contents['images'].items()
  }
  as_one = read(measured_runs.write(tmp_path / 'one', together))
  assert repr(as_one.categories) == repr(apart.categories)  # NaN is not equal to itself
  check_comparable([apart, as_one])


@pytest.mark.parametrize('maps', [None, b'no zip'])
def test_maps_that_were_removed_have_no_size(tmp_path, maps):
  folder = measured_runs.write(tmp_path / 'run', measured_runs.contents(0))
  (folder / 'eval' / 'maps.npz').unlink()
  if maps:
    (folder / 'eval' / 'maps.npz').write_bytes(maps)
  assert read(folder).sizes == frozenset()


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    (None, r'run was not measured: run `patch-svdd eval --workdir .*run`$'),
    ('{"main_map": "k64", "maps": {}}', 'does not say what each image scored, as older ones do no'),
    ('{"images": {}}', r'metrics.json is damaged: run `patch-svdd eval --workdir .*` again$'),
    ('{"images"', r'metrics.json is damaged \(.*\): run `patch-svdd eval --workdir .*` again$'),
    ('7', r'metrics.json is damaged \(.*\): run `patch-svdd eval'),
  ],
)
def test_what_was_not_measured_is_said(tmp_path, text, words):
  folder = tmp_path / 'run'
  if text:
    (folder / 'eval').mkdir(parents=True)
    (folder / 'eval' / 'metrics.json').write_text(text)
  with pytest.raises(UserError, match=words):
    read(folder)


def test_a_system_of_baselines_has_its_figures_beside_it(tmp_path):
  folder = tmp_path / 'all' / 'raw_patch'
  folder.mkdir(parents=True)
  (folder / 'metrics.json').write_text(json.dumps(measured_runs.contents(0)))
  assert list(read(folder).categories[ALONE].images) == NAMES
  (folder / 'metrics.json').write_text('{}')
  with pytest.raises(UserError, match=r'run `patch-svdd baselines --workdir .*all --restart`$'):
    read(folder)


def test_folders_that_were_measured_are_named(tmp_path):
  for name in ('screw/trained', 'screw/authors', 'bottle/trained', 'nut'):
    measured_runs.write(tmp_path / name, measured_runs.contents(0))
  words = 'was not measured, but in it bottle/trained, nut, screw/authors, ...: run'
  with pytest.raises(UserError, match=words):
    read(tmp_path)


def test_without_categories_there_is_no_run(tmp_path):
  with pytest.raises(UserError, match='has no category that was measured'):
    measured_run.read(tmp_path, {})


def change(contents, name, **changes):
  contents['images'][name] |= changes


@pytest.mark.parametrize(
  ('edit', 'words'),
  [
    (
      lambda contents: [change(contents, name, digest='x') for name in NAMES[1:5]],
      r'4 others \(test/good/001.png, test/good/002.png, test/good/003.png, \.\.\.\)',
    ),
    (
      lambda contents: change(contents, NAMES[-1], defect='scratch'),
      r'1 others \(test/hole/017.png\)',
    ),
    (lambda contents: contents['images'].pop(NAMES[0]), r'1 missing \(test/good/000.png\)'),
    (
      lambda contents: contents['images'].update(new=contents['images'].pop(NAMES[0])),
      r'1 more \(new\), 1 missing \(test/good/000.png\)',
    ),
  ],
)
def test_other_test_images_are_refused_and_named(tmp_path, edit, words):
  contents = measured_runs.contents(1)
  edit(contents)
  runs = [
    read(measured_runs.write(tmp_path / name, each))
    for name, each in {'a': measured_runs.contents(0), 'b': contents}.items()
  ]
  words = f'/b was measured on other test images than .*/a: {words}; run `patch-svdd eval`'
  with pytest.raises(UserError, match=words):
    check_comparable(runs)


def test_a_run_is_not_compared_with_itself(tmp_path, monkeypatch):
  measured_runs.write(tmp_path / 'a', measured_runs.contents(0))
  monkeypatch.chdir(tmp_path)
  there = tmp_path / 'a'
  with pytest.raises(UserError, match='is named twice'):
    check_comparable([read(there), read(there.relative_to(tmp_path))])


def test_the_order_of_images_is_nothing(tmp_path):
  contents = measured_runs.contents(0)
  contents['images'] = dict(reversed(contents['images'].items()))
  one, other = (
    read(measured_runs.write(tmp_path / name, each))
    for name, each in {'a': measured_runs.contents(0), 'b': contents}.items()
  )
  check_comparable([one, other])
  assert json.dumps(list(one.categories[ALONE].images)) != list(other.categories[ALONE].images)


@pytest.mark.parametrize(
  ('places', 'short'),
  [
    (['runs/a', 'runs/b'], ['a', 'b']),
    (['runs/a/screw/trained', 'runs/b/screw/trained/'], ['a', 'b']),
    (['gs://one/runs/a', '/home/runs/b'], ['gs://one/runs/a', '/home/runs/b']),
    (['runs/a', 'runs/a/b'], ['runs/a', 'runs/a/b']),
    (['runs/screw/trained', 'runs/screw/authors', 'runs/screw-2/trained'],
     ['screw/trained', 'screw/authors', 'screw-2/trained']),
  ],
)  # fmt: skip
def test_names_are_what_differs(places, short):
  assert short_names(places) == short
