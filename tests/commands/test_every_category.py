"""`train` and `eval` of all categories, one by one and as one, on an imitation of MVTec AD."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import every_category, main
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.experiments.training_run import StoppedError
from tests.support import categories

pytestmark = pytest.mark.usefixtures('only_quick_compilation')

CONFIG = """
from patch_svdd_jax.configs import mvtec

def get_config(category):
  config = mvtec.get_config(category)
  config.data.image_size = (24, 20)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  # Another number for each category: that is why a config is read for each.
  config.train.update(steps=len(category), steps_per_call=4, batch_size=4)
  config.checkpoint.every = 10
  config.score.strides = (8,)
  return config
"""
PRESENT = ['bottle', 'screw']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('categories')
  for seed, category in enumerate(PRESENT):
    categories.write(folder / 'mvtec' / category, seed)
  shutil.copytree(folder / 'mvtec', folder / 'broken')
  categories.write(folder / 'broken/tile', 2)
  shutil.rmtree(folder / 'broken/screw/train')
  (folder / 'broken/screw/train/good').mkdir(parents=True)
  (folder / 'tiny.py').write_text(CONFIG)
  return folder


def command(place, workdir, category='all', data='mvtec'):
  return [
    'train',
    f'--config={place / "tiny.py"}:{category}',
    f'--workdir={workdir}',
    f'--config.data.root={place / data}',
    f'--config.data.prepared={place / data}.prepared',
  ]


@pytest.fixture(scope='module')
def trained(place):
  workdir = place / 'all'
  assert main(command(place, workdir)) == 0
  return workdir


def read(workdir):
  return json.loads((workdir / 'categories.json').read_text())


def aurocs(maps):
  return {metric: maps['k8'][metric] for metric in ('image_auroc', 'pixel_auroc')}


def test_each_is_trained_by_its_own_config_and_measured(trained):
  assert list(read(trained)) == PRESENT
  for category, entry in read(trained).items():
    workdir = trained / category
    assert entry['step'] == configuration.load(workdir).train.steps == len(category)
    assert configuration.load(workdir).data.category == category
    metrics = json.loads((workdir / 'eval/metrics.json').read_text())
    assert {name: entry[name] for name in metrics} == metrics
    assert (workdir / 'model').is_dir()


def test_the_table_has_all_and_their_mean(trained):
  *rows, last = (trained / 'categories.md').read_text().splitlines()[2:]
  found = [aurocs(entry['maps']) for entry in read(trained).values()]
  assert [row.split()[1] for row in rows] == PRESENT
  assert last.startswith('| mean of 2 |')
  for metric in found[0]:
    column = 2 + list(TITLES).index(metric)
    expected = np.mean([figures[metric] for figures in found])
    assert float(last.split('|')[column]) == pytest.approx(expected, abs=1e-4)
  with (trained / 'categories.csv').open() as file:
    for line, figures in zip(csv.DictReader(file), found, strict=True):
      assert {metric: float(line[metric]) for metric in figures} == figures


def test_what_is_done_is_not_done_again(place, trained, monkeypatch, capsys):
  before = read(trained)
  monkeypatch.delattr(every_category, 'train')
  assert main(command(place, trained)) == 0
  assert 'mean of 2' in capsys.readouterr().out
  assert read(trained) == before
  # But what another config was measured with is.
  with pytest.raises(NameError, match='train'):
    main([*command(place, trained), '--config.score.strides=(4,)'])


def test_a_config_that_does_not_fit_is_refused_before_anything_is_trained(
  place, trained, monkeypatch, capsys
):
  monkeypatch.delattr(every_category, 'train')
  assert main([*command(place, trained), '--config.seed=1']) == 2
  assert 'bottle was started with another config (config.seed: 0 -> 1)' in capsys.readouterr().err


def test_one_that_fails_does_not_stop_the_others(place, tmp_path, capsys):
  (tmp_path / 'run').mkdir()
  assert main(command(place, tmp_path / 'run', data='broken')) == 1
  shown = capsys.readouterr()
  assert 'screw failed: ' in shown.out
  assert list(read(tmp_path / 'run')) == ['bottle', 'screw', 'tile']
  assert 'mean of 2' in shown.out
  # Mended, it alone is left.
  categories.write(place / 'broken/screw', 1)
  assert main(command(place, tmp_path / 'run', data='broken')) == 0
  shown = capsys.readouterr()
  assert '1 of 1: screw' in shown.err
  assert 'mean of 3' in shown.out


def test_a_stopped_run_goes_on_with_what_is_left(place, trained, tmp_path, monkeypatch, capsys):
  """The first category, which was measured before, is not trained again."""
  shutil.copytree(trained, tmp_path / 'run')
  entries = read(trained)
  del entries['screw']
  (tmp_path / 'run/categories.json').write_text(json.dumps(entries))

  def stop(config, workdir, *_, **__):
    raise StoppedError(workdir, 1, 2)

  with monkeypatch.context() as patch:
    patch.setattr(every_category, 'train', stop)
    assert main(command(place, tmp_path / 'run')) == 130
  assert list(read(tmp_path / 'run')) == ['bottle']
  assert main(command(place, tmp_path / 'run')) == 0
  assert '1 of 1: screw' in capsys.readouterr().err
  found = read(tmp_path / 'run')
  assert found['screw']['maps'] == read(trained)['screw']['maps']


def test_a_record_of_something_else_is_refused(place, tmp_path, capsys):
  (tmp_path / 'categories.json').write_text('[1]')
  assert main(command(place, tmp_path)) == 2
  assert 'categories.json is no file of train' in capsys.readouterr().err


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


def test_one_model_for_all(place, tmp_path, capsys):
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
  assert metrics['random_encoder']['per_category']['k8'].keys() == set(PRESENT)
  assert (maps / 'screw/test/good/000.tiff').exists()
  report = (workdir / 'eval/report.html').read_text()
  assert 'Categories (k8)' in report
