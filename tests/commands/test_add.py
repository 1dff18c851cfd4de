"""`patch-svdd add` on a small run: images in, out again, and after the detector was made anew."""

import shutil

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import main
from patch_svdd_jax.detection.detector import Detector, saved_origin, versions
from tests.support.runs import train_on_folder

SIZE = (32, 32)


def part(seed, bright=False):
  image = np.random.default_rng(seed).normal(120, 20, (*SIZE, 3))
  if bright:
    image[8:24, 8:24] = 255
  return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run on a folder of a few images."""
  return train_on_folder(tmp_path_factory.mktemp('add'), [part(seed) for seed in range(12)])


def save(folder, seeds, **options):
  folder.mkdir(parents=True, exist_ok=True)
  for seed in seeds:
    Image.fromarray(part(seed, **options)).save(folder / f'{seed}.png')


@pytest.fixture
def run(trained, tmp_path):
  return shutil.copytree(trained, tmp_path / 'run')


@pytest.fixture
def new(tmp_path):
  save(tmp_path / 'new', (50, 51))
  return tmp_path / 'new'


def add(run, *arguments):
  return main(['add', '--model', str(run), *map(str, arguments)])


def test_images_go_in_and_out(run, new, capsys):
  before = Detector.load(run)
  assert add(run, new) == 0
  out = capsys.readouterr().out
  assert 'added: 2, scores ' in out
  assert 'images that calibrate: 12 -> 14' in out
  assert 'threshold at a false-alarm rate of 0.01: ' in out
  assert f'written: {run}: version 2 of the detector (--undo goes back)' in out
  after = Detector.load(run)
  assert [each.name for each in after.origin.additions] == ['50.png', '51.png']
  for addition in after.origin.additions:
    copy = run / 'additions' / addition.file
    assert copy.read_bytes() == (new / addition.name).read_bytes()
  scores = PatchSVDD(after).predict([part(50)], false_alarm_rate=0.5).scores
  assert scores[0] < 1e-3 * before.calibration.scores.min()

  assert add(run, new, new / '50.png') == 0
  assert capsys.readouterr().out.splitlines() == [
    '2 of 2 images were added before',
    'nothing is new',
  ]
  assert add(run, '--undo') == 0
  line = f'{run}: back to version 1 of the detector, without 2 of the images that were added'
  assert line in capsys.readouterr().out
  np.testing.assert_array_equal(Detector.load(run).calibration.scores, before.calibration.scores)
  assert not list((run / 'additions').iterdir())
  assert add(run, '--undo') == 2
  assert 'has no earlier versions to go back to' in capsys.readouterr().err


def test_a_detector_that_is_made_anew_keeps_them(run, new, capsys):
  assert add(run, new) == 0
  assert main(['build-bank', '--workdir', str(run)]) == 0
  origin = saved_origin(run)
  assert [each.name for each in origin.additions] == ['50.png', '51.png']
  assert versions(run) == [3]
  (run / 'additions' / origin.additions[0].file).unlink()
  capsys.readouterr()
  assert main(['build-bank', '--workdir', str(run)]) == 0
  assert saved_origin(run).additions == ()
  # They are added again from where they were kept.
  assert add(run, run / 'additions') == 0
  (kept,) = saved_origin(run).additions
  assert kept.file == origin.additions[1].file


def test_what_looks_like_a_defect_is_named(run, tmp_path, capsys):
  save(tmp_path / 'bad', (60,), bright=True)
  assert add(run, tmp_path / 'bad', '--false-alarm-rate', '0.2') == 0
  err = capsys.readouterr().err
  assert '1 of 1 images scored as anomalous before: 60.png; were they defective, --undo' in err


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ((), 'no images: name files or folders, or --undo'),
    (('--undo', '0'), '--undo 0: give at least 1'),
    (('--undo', '5'), 'has no earlier versions to go back to'),
  ],
)
def test_what_cannot_be_is_one_line(run, arguments, words, capsys):
  assert add(run, *arguments) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert words in line


def test_one_that_cannot_be_read_adds_nothing(run, new, capsys):
  (new / 'broken.png').write_bytes(b'\x89PNG nothing')
  assert add(run, new) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('error: nothing was added: ')
  assert 'broken.png' in error
  assert versions(run) == [1]
  assert not (run / 'additions').exists()


def test_eval_and_predict_take_the_version_that_counts(run, new, tmp_path, capsys):
  assert add(run, new) == 0
  capsys.readouterr()
  rates = ['--false-alarm-rate', '0.5', '--pixel-false-alarm-rate', '0.5']
  found = ['predict', '--model', str(run), '--output', str(tmp_path / 'found'), *rates, str(new)]
  assert main(found) == 0
  assert '2 images: 0 alarms' in capsys.readouterr().out
