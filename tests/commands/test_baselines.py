"""`baselines` end to end on an embedded texture: what it writes, resumes, and refuses."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import baselines, data
from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.baselines.pixel_boundary import PixelBoundary
from patch_svdd_jax.baselines.raw_patches import RawPatches
from patch_svdd_jax.commands import baselines as command
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import Dataset
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import training_run
from tests.support import small_deep_svdd

pytestmark = pytest.mark.usefixtures('only_quick_compilation')

CLASSES = {
  **dict.fromkeys(baselines.SYSTEMS, Detector),
  **dict.fromkeys(('ocsvm_image', 'ocsvm_patch', 'svdd_image', 'svdd_patch'), PixelBoundary),
  'deep_svdd': DeepSvdd,
  'raw_patch': RawPatches,
}

CONFIG = """
from patch_svdd_jax.configs import default

def get_config(prepared):
  config = default.get_config()
  config.data.update(prepared=prepared, image_size=(24, 24), resize='box')
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=3, steps_per_call=3, batch_size=8, position_pairs='valid')
  config.score.update(strides=(8,), batch_size=2)
  config.baseline.update(components=4, stride=8, fitted_patches=40, steps=2)
  return config
"""


@pytest.fixture(scope='module', autouse=True)
def small():
  """The first training images, test images of both kinds, and a small Deep SVDD."""
  load = data.load

  def load_few(config):
    whole = load(config)
    normal, bad = (np.flatnonzero(whole.test.labels == label)[:3] for label in (False, True))
    test = whole.test.take(np.concatenate([normal, bad]))
    return Dataset(whole.name, whole.train.take(np.arange(6)), whole.held_out, test)

  with pytest.MonkeyPatch.context() as patch, small_deep_svdd.small():
    patch.setattr(data, 'load', load_few)
    yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('baselines')
  (folder / 'tiny.py').write_text(CONFIG)
  return f'{folder / "tiny.py"}:{folder / "prepared"}'


def arguments(config, workdir, *others):
  return ['baselines', '--config', config, '--workdir', str(workdir), *others]


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
    assert system.origin.step == 3
  elif name == 'random_encoder':
    assert system.origin.step == 0


def test_the_tables_and_the_bars(finished):
  workdir, printed = finished
  text = (workdir / 'baselines.md').read_text()
  assert text in printed
  lines = text.splitlines()
  assert [line.split()[1] for line in lines[2:]] == list(baselines.SYSTEMS)
  sheet = (workdir / 'baselines.csv').read_text().splitlines()
  assert len(sheet) == 1 + len(baselines.SYSTEMS)
  with Image.open(workdir / 'baselines.png') as image:
    assert image.format == 'PNG'


def test_eval_accepts_a_trained_system(finished, capsys):
  workdir = finished[0] / 'patch_svdd'
  assert main(['eval', '--workdir', str(workdir), '--no-random-encoder']) == 0
  expected = read(finished[0])['patch_svdd']['maps']
  assert json.loads((workdir / 'eval/metrics.json').read_text())['maps'] == expected


def test_a_killed_run_goes_on_and_failures_are_tried_again(config, tmp_path, monkeypatch, capsys):
  workdir, fitted = tmp_path / 'run', []
  fit = command.fit

  def fragile(name, *others):
    fitted.append(name)
    if name == 'svdd_image':
      raise UserError('it is raining')
    if name == 'ocsvm_patch':
      raise ZeroDivisionError('by\nnothing')
    if name == 'deep_svdd' and fitted.count('deep_svdd') == 1:
      raise KeyboardInterrupt
    return fit(name, *others)

  monkeypatch.setattr(command, 'fit', fragile)
  systems = ['--systems', 'deep_svdd', 'ocsvm_patch', 'svdd_image', 'ocsvm_image']
  assert main(arguments(config, workdir, *systems)) == 130
  assert fitted == ['ocsvm_image', 'ocsvm_patch', 'svdd_image', 'deep_svdd']
  first = read(workdir)
  assert list(first) == ['ocsvm_image', 'ocsvm_patch', 'svdd_image']
  shown = capsys.readouterr().err
  assert 'svdd_image failed: it is raining\n' in shown
  # What nobody foresaw is shown whole.
  assert 'Traceback' in shown

  fitted[3:] = ['deep_svdd']
  del fitted[:3]
  assert main(arguments(config, workdir, *systems)) == 1
  assert fitted == ['deep_svdd', 'ocsvm_patch', 'svdd_image', 'deep_svdd']
  record, printed = read(workdir), capsys.readouterr().out
  assert record['ocsvm_image'] == first['ocsvm_image']
  assert 'maps' in record['deep_svdd']
  assert record['svdd_image'] == {'error': 'it is raining'}
  assert 'svdd_image failed: it is raining' in printed
  assert 'ocsvm_patch failed: ZeroDivisionError: by\n' in printed
  assert '| svdd_image  |      failed |' in printed

  monkeypatch.undo()
  assert main(arguments(config, workdir, '--systems', 'svdd_image')) == 0
  assert list(read(workdir)) == ['ocsvm_image', 'ocsvm_patch', 'svdd_image', 'deep_svdd']
  assert 'maps' in read(workdir)['svdd_image']


def test_training_that_was_stopped_goes_on(config, finished, tmp_path, monkeypatch, capsys):
  class Impatient(training_run.StopRequest):
    def __call__(self):
      self.signal = 15
      return True

  workdir = tmp_path / 'run'
  others = ['--systems', 'patch_svdd']
  with monkeypatch.context() as patch:
    patch.setattr(training_run, 'StopRequest', Impatient)
    assert main(arguments(config, workdir, *others)) == 128 + 15
  assert 'stopped at step 0' in capsys.readouterr().out
  spent = read(workdir)['patch_svdd']
  assert spent.keys() == {'fit_seconds'}
  assert '| patch_svdd |  unfinished |' in (workdir / 'baselines.md').read_text()
  assert main(arguments(config, workdir, *others)) == 0
  entry = read(workdir)['patch_svdd']
  assert entry['fit_seconds'] > spent['fit_seconds']
  assert entry['maps'] == read(finished[0])['patch_svdd']['maps']


def test_another_config_is_refused(config, finished, capsys):
  workdir = finished[0]
  before = (workdir / 'baselines.json').read_bytes()
  others = ['--systems', 'ocsvm_image', '--config.baseline.nu=0.2']
  assert main(arguments(config, workdir, *others)) == 2
  line = capsys.readouterr().err
  assert line.startswith(f'error: {workdir} was started with another config (')
  assert 'config.baseline.nu: 0.1 -> 0.2' in line
  assert (workdir / 'baselines.json').read_bytes() == before


@pytest.mark.parametrize(
  ('others', 'words'),
  [
    (['--systems', 'ocsvm'], '--systems ocsvm: give some of ocsvm_image, '),
    (['--config.baseline.nu=2'], 'config.baseline.nu=2.0: must be a share'),
    (['--config.train.steps=0'], 'config.train.steps=0: must be at least 1'),
  ],
)
def test_a_bad_argument_is_one_line_and_nothing_is_written(config, tmp_path, capsys, others, words):
  assert main(arguments(config, tmp_path / 'run', *others)) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith('error: ')
  assert printed.err.count('\n') == 1
  assert words in printed.err
  assert not (tmp_path / 'run').exists()


def test_the_systems_are_documented():
  assert sorted(baselines.SYSTEMS) == sorted([*baselines.FITTED, *baselines.TRAINED])
  assert all(name in command.__doc__ for name in baselines.SYSTEMS)
