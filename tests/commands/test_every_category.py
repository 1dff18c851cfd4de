"""`train` and `eval` of all categories, one by one and as one, on an imitation of MVTec AD."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import every_category, main
from patch_svdd_jax.reporting import category_table
from tests.support import categories

PRESENT = ['bottle', 'screw']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('categories')
  for seed, category in enumerate(PRESENT):
    categories.write(folder / 'mvtec' / category, seed)
  copied = folder / 'mvtec' / PRESENT[0]
  shutil.copy(copied / 'train/good/002.png', copied / 'test/good/001.png')
  (folder / 'tiny.py').write_text(categories.CONFIG)
  return folder


def command(place, workdir, category='all'):
  return [
    'train',
    f'--config={place / "tiny.py"}:{category}',
    f'--workdir={workdir}',
    f'--config.data.root={place / "mvtec"}',
    f'--config.data.prepared={place / "prepared"}',
  ]


@pytest.fixture(scope='module')
def first(place):
  """The workdir of all categories, and what was said on the way."""
  workdir, said = place / 'all', io.StringIO()
  with contextlib.redirect_stderr(said):
    assert main(command(place, workdir)) == 0
  return workdir, said.getvalue()


@pytest.fixture(scope='module')
def trained(first):
  return first[0]


def read(workdir):
  return json.loads((workdir / 'categories.json').read_text())


def test_each_is_trained_by_its_own_config_and_measured(trained):
  assert list(read(trained)) == PRESENT
  for category, entry in read(trained).items():
    workdir = trained / category
    assert entry['step'] == configuration.load(workdir).train.steps == len(category)
    assert configuration.load(workdir).data.category == category
    metrics = json.loads((workdir / 'eval/metrics.json').read_text())
    assert {name: entry[name] for name in metrics} == metrics
    assert (workdir / 'model').is_dir()


def test_what_to_mind_is_said_of_each(first):
  """As `eval` says it; one test image of one of them is a copy."""
  parts = first[1].split(f'2 of 2: {PRESENT[1]}')
  assert len(parts) == 2
  for part, copies in zip(parts, (1, 0), strict=True):
    warnings = [line for line in part.splitlines() if line.startswith('warning: ')]
    assert sum('test image is a copy of normal images' in line for line in warnings) == copies
    assert any('3 normal images cannot ensure' in line for line in warnings)
    assert len(set(warnings)) == len(warnings)


def test_the_tables_have_all(trained):
  text, table = category_table.render(read(trained))
  assert [line.split()[1] for line in text.splitlines()[2:]] == [*PRESENT, 'mean']
  assert (trained / 'categories.md').read_text() == f'{text}\n'
  assert (trained / 'categories.csv').read_text() == table.to_csv()


def test_what_is_done_is_not_done_again(place, trained, monkeypatch, capsys):
  before = read(trained)
  monkeypatch.delattr(every_category, 'train')
  assert main(command(place, trained)) == 0
  assert 'mean of 2' in capsys.readouterr().out
  assert read(trained) == before
  # But what another config was measured with is.
  with pytest.raises(NameError, match='train'):
    main([*command(place, trained), '--config.score.strides=(4,)'])
  assert read(trained) == before


def test_a_config_that_does_not_fit_is_refused_before_anything_is_trained(
  place, trained, monkeypatch, capsys
):
  monkeypatch.delattr(every_category, 'train')
  assert main([*command(place, trained), '--config.seed=1']) == 2
  assert 'bottle was started with another config (config.seed: 0 -> 1)' in capsys.readouterr().err


def test_eval_measures_all_anew(trained, tmp_path, capsys):
  before = read(trained)
  shutil.copytree(trained, tmp_path / 'run')
  maps = tmp_path / 'maps'
  assert main(['eval', f'--workdir={tmp_path / "run"}', f'--mvtec-maps={maps}']) == 0
  assert 'mean of 2' in capsys.readouterr().out
  found = read(tmp_path / 'run')
  assert {name: entry['maps'] for name, entry in found.items()} == {
    name: entry['maps'] for name, entry in before.items()
  }
  assert sorted(path.name for path in maps.iterdir()) == PRESENT


def test_one_model_for_all(place, trained, tmp_path, capsys):
  """Its figures by category are those of scikit-learn."""
  workdir, maps = tmp_path / 'run', tmp_path / 'maps'
  assert main([*command(place, workdir, 'multiclass'), '--config.train.steps=3']) == 0
  assert main(['eval', f'--workdir={workdir}', f'--mvtec-maps={maps}']) == 0
  assert 'mean of 2' in capsys.readouterr().out
  metrics = json.loads((workdir / 'eval/metrics.json').read_text())
  with np.load(workdir / 'eval/maps.npz') as arrays:
    names, labels, scores = arrays['names'], arrays['labels'], arrays['k8_score']
    defects = arrays['defects']
  for category in PRESENT:
    own = np.char.startswith(names, f'{category}/')
    assert own.sum() == 5
    auroc = roc_auc_score(labels[own], scores[own])
    assert metrics['per_category']['k8'][category]['image_auroc'] == pytest.approx(auroc, abs=1e-12)
    # A defect is compared with normal images of its own category.
    among = own & ((defects == 'good') | (defects == f'{category}/scratch'))
    auroc = roc_auc_score(labels[among], scores[among])
    found = metrics['per_defect']['k8'][f'{category}/scratch']['image_auroc']
    assert found == pytest.approx(auroc, abs=1e-12)
  for name in ('random_encoder', 'thumbnail'):
    assert metrics[name]['per_category']['k8'].keys() == set(PRESENT)
  assert (maps / 'screw/test/good/000.tiff').exists()
  report = (workdir / 'eval/report.html').read_text()
  assert 'Categories (k8)' in report
  # It is compared with the models of one category each.
  assert main(['compare', str(trained), str(workdir), '--resamples=10']) == 0
  assert '## Mean of 2 categories' in capsys.readouterr().out
