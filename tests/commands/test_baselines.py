"""`baselines` end to end on an embedded texture: what it writes, resumes, and refuses."""

import contextlib
import io
import json
import shutil

import pytest

from patch_svdd_jax import baselines, data
from patch_svdd_jax.baselines import comparison
from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.commands import baselines as command
from patch_svdd_jax.commands import main
from patch_svdd_jax.configs import default
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.experiments import training_run
from tests.faults import programs
from tests.support import small_deep_svdd

CLASSES = {
  **dict.fromkeys(baselines.SYSTEMS, Detector),
  **dict.fromkeys(('ocsvm_image', 'ocsvm_patch', 'svdd_image', 'svdd_patch'), PixelBoundary),
  'deep_svdd': DeepSvdd,
  'raw_patch': RawPatches,
}
# The patches of an odd scale have no thumbnails.
ODD = ['--config.encoder.receptive_field=9', '--config.encoder.scales=(9,)']
SETTINGS = {'components': 4, 'stride': 8, 'fitted_patches': 40, 'steps': 2}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """What --config takes: a config file and a folder of images; Deep SVDD is a small one."""
  folder = tmp_path_factory.mktemp('baselines') / 'nuts'
  with small_deep_svdd.small():
    yield programs.config_for(programs.write(folder, train=6, good=3, bad=3))


def arguments(config, workdir, *others):
  settings = [f'--config.baseline.{key}={value}' for key, value in SETTINGS.items()]
  return ['baselines', '--config', config, '--workdir', str(workdir), *settings, *others]


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
  """The workdir of all systems, and what was printed."""
  workdir, printed = tmp_path_factory.mktemp('finished') / 'all', io.StringIO()
  with contextlib.redirect_stdout(printed):
    status = main(arguments(config, workdir))
  assert status == 0
  return workdir, printed.getvalue()


def read(workdir):
  return json.loads((workdir / 'baselines.json').read_text())['systems']


def test_every_system_is_fitted_saved_and_measured(finished):
  workdir, _ = finished
  record = read(workdir)
  assert list(record) == list(baselines.SYSTEMS)
  for name, entry in record.items():
    [(_, figures)] = entry['maps'].items()
    assert 0 <= figures['image_auroc'] <= 1
    assert 0 <= figures['pixel_auroc'] <= 1
    assert entry['fit_seconds'] > 0
    assert entry['timing']['images_per_s'] > 0
    assert json.loads((workdir / name / 'metrics.json').read_text()) == entry
  # With an RBF kernel SVDD is the one-class SVM.
  for rows in ('image', 'patch'):
    assert record[f'svdd_{rows}']['maps'] == record[f'ocsvm_{rows}']['maps']


@pytest.mark.parametrize('name', baselines.SYSTEMS)
def test_what_was_saved_scores_the_same(name, finished, config):
  system = CLASSES[name].load(finished[0] / name)
  dataset = data.load(system.config.data)
  scores = list(system.score(dataset.test.images).images.values())[-1]
  good, bad = scores[~dataset.test.labels], scores[dataset.test.labels]
  wins = (bad[:, None] > good[None]).mean() + (bad[:, None] == good[None]).mean() / 2
  figures = list(read(finished[0])[name]['maps'].values())[-1]
  assert figures['image_auroc'] == pytest.approx(wins)
  if name in baselines.TRAINED:
    assert system.config.train.svdd == ('centre' if name == 'deep_svdd_patch' else 'neighbour')
    assert system.origin.step == 4
  elif CLASSES[name] is Detector:
    assert system.origin.step == 0
    alone = (('thumbnail',), True) if name == 'thumbnail' else (('embedding',), False)
    assert (system.config.score.features, system.config.score.whiten) == alone


def test_the_tables_and_the_bars(finished):
  workdir, printed = finished
  text, table = comparison.render(read(workdir))
  assert printed == f'{text}\n\nwritten: {workdir}\n'
  assert (workdir / 'baselines.md').read_text() == f'{text}\n'
  assert (workdir / 'baselines.csv').read_text() == table.to_csv()
  assert (workdir / 'baselines.png').exists()


def test_eval_accepts_a_trained_system(finished, capsys):
  workdir = finished[0] / 'patch_svdd'
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  expected = read(finished[0])['patch_svdd']['maps']
  assert json.loads((workdir / 'eval/metrics.json').read_text())['maps'] == expected


def test_training_that_was_stopped_goes_on(config, finished, tmp_path, monkeypatch):
  class Impatient(training_run.StopRequest):
    def __call__(self):
      self.signal = 15
      return True

  workdir = tmp_path / 'run'
  others = ['--systems', 'patch_svdd', 'ocsvm_image']
  with monkeypatch.context() as patch:
    patch.setattr(training_run, 'StopRequest', Impatient)
    assert main(arguments(config, workdir, *others)) == 128 + 15
  spent = read(workdir)['patch_svdd']
  assert spent.keys() == {'fit_seconds'}
  assert '| patch_svdd  |  unfinished |' in (workdir / 'baselines.md').read_text()
  assert main(arguments(config, workdir, *others)) == 0
  entry = read(workdir)['patch_svdd']
  assert entry['fit_seconds'] > spent['fit_seconds']
  assert entry['maps'] == read(finished[0])['patch_svdd']['maps']


def test_any_failure_is_listed_in_the_order_of_the_table(config, tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    patch.setattr(command, 'fit', lambda *_: 1 // 0)
    assert main(arguments(config, tmp_path, '--systems', 'svdd_image')) == 1
  failed = 'svdd_image failed: ZeroDivisionError: integer division or modulo by zero\n'
  assert failed in capsys.readouterr().out
  assert main(arguments(config, tmp_path, '--systems', 'ocsvm_image')) == 0
  assert list(read(tmp_path)) == ['ocsvm_image', 'svdd_image']


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--systems', 'ocsvm'], '--systems ocsvm: give some of ocsvm_image, '),
    (['--config.baseline.nu=2'], 'config.baseline.nu=2.0: must be a share'),
    (['--config.train.steps=0'], 'config.train.steps=0: must be at least 1'),
    ([*ODD, '--systems', 'thumbnail'], "'thumbnail' has 4 cells, by which K=9 cannot be divided"),
  ],
)
def test_a_bad_argument_is_one_line_and_nothing_is_written(config, tmp_path, capsys, others, words):
  assert main(arguments(config, tmp_path / 'run', *others)) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith('error: ')
  assert printed.err.count('\n') == 1
  assert words in printed.err
  assert not (tmp_path / 'run').exists()


def test_where_a_scale_has_no_thumbnails_all_others_are_meant():
  config = default.get_config()
  assert baselines.possible(config) == baselines.SYSTEMS
  config.encoder.scales = (18, 9)
  others = [name for name in baselines.SYSTEMS if name != 'thumbnail']
  assert list(baselines.possible(config)) == others


def test_a_system_that_an_older_table_lacks_is_added(config, finished, tmp_path, capsys):
  workdir = shutil.copytree(finished[0], tmp_path / 'run')
  record = json.loads((workdir / 'baselines.json').read_text())
  expected = record['systems'].pop('thumbnail')
  (workdir / 'baselines.json').write_text(json.dumps(record))
  assert main(arguments(config, workdir)) == 0
  assert capsys.readouterr().err.startswith('1 of 1: thumbnail')
  assert list(read(workdir)) == list(baselines.SYSTEMS)
  assert read(workdir)['thumbnail']['maps'] == expected['maps']


def test_the_systems_are_documented():
  assert sorted(baselines.SYSTEMS) == sorted([*baselines.FITTED, *baselines.TRAINED])
  assert all(name in command.__doc__ for name in baselines.SYSTEMS)
