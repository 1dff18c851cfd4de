"""MVTec AD 2, on an imitation: `submit`, and the lights that `eval` and `light` tell apart."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import roc_auc_score

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import main
from patch_svdd_jax.data import private_splits
from patch_svdd_jax.evaluation import submission
from patch_svdd_jax.system import files
from tests.data import downloads
from tests.support import categories

PRESENT = ['can', 'vial']
STEMS = ('test_private/000_regular', 'test_private/001_regular')
STEMS += ('test_private_mixed/000_mixed', 'test_private_mixed/001_mixed')
RATE = 0.25
CONFIG = categories.CONFIG.replace(
  'config.data.image_size =', "config.data.name = 'mvtec_ad_2'\n  config.data.image_size ="
)


@pytest.fixture(autouse=True)
def official(monkeypatch):
  """Lets the tiny imitation pass for the official data."""
  monkeypatch.setattr(private_splits, 'COUNTS', dict.fromkeys(PRESENT, 2))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """The data, of images of two sizes, and the workdir of both categories, of one detector."""
  folder = tmp_path_factory.mktemp('ad2')
  for category in PRESENT:
    made = downloads.mvtec_ad_2(folder / 'root', category)
    categories.save(made.folder / f'{STEMS[1]}.png', np.zeros((31, 17, 3), np.uint8))
  (folder / 'tiny.py').write_text(CONFIG)
  arguments = ['train', f'--config={folder / "tiny.py"}:vial', f'--workdir={folder / "all/vial"}']
  arguments += [f'--config.data.{key}={folder / key}' for key in ('root', 'prepared')]
  assert main(arguments) == 0
  shutil.copytree(folder / 'all/vial', folder / 'all/can')
  with_data(folder / 'all/can', category='can')
  (folder / 'all/categories.json').write_text('{}')
  return folder


def with_data(workdir, **changes):
  """Changes what a run says of its data."""
  config = json.loads((workdir / 'config.json').read_text())
  config['data'].update(changes)
  (workdir / 'config.json').write_text(json.dumps(config))


def submit(workdir, output, *more):
  rate = f'--pixel-false-alarm-rate={RATE}'
  return main(['submit', f'--workdir={workdir}', f'--output={output}', rate, *map(str, more)])


def contents(folder):
  return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture
def submitted(place, tmp_path, capsys):
  """A whole submission, and what was printed."""
  capsys.readouterr()
  assert submit(place / 'all', tmp_path / 'out') == 0
  return tmp_path / 'out', capsys.readouterr()


def test_every_private_image_has_its_files(submitted, place):
  """Read by others than the checker, and compared with the detector's own maps."""
  output, printed = submitted
  folder = output / 'submission'
  record = json.loads((output / 'submission.json').read_text())
  for category in PRESENT:
    detector = PatchSVDD.load(place / 'all' / category)
    threshold = detector.detector.calibration.pixel_threshold(RATE).value
    scale, level = record[category]['scale'], record[category]['level']
    for stem in STEMS:
      with Image.open(place / 'root' / category / f'{stem}.png') as image:
        size, pixels = image.size[::-1], np.asarray(image)
      values = tifffile.imread(folder / f'anomaly_images/{category}/{stem}.tiff')
      assert (values.dtype, values.shape) == (np.float16, size)
      with Image.open(folder / f'anomaly_images_thresholded/{category}/{stem}.png') as image:
        assert (image.mode, image.size[::-1]) == ('L', size)
        mask = np.asarray(image)
      [own] = detector.predict([pixels], false_alarm_rate=0.3).maps
      expected = np.asarray(
        Image.fromarray(own).resize(size[::-1], Image.Resampling.BILINEAR), np.float64
      )
      # float16 rounds by a share of 2^-11.
      np.testing.assert_allclose(values / scale, expected, rtol=2.0**-11 + 1e-5)
      np.testing.assert_array_equal(mask, np.where(values > np.float16(level), 255, 0))
      apart = np.abs(expected / threshold - 1) > 2.0**-10
      np.testing.assert_array_equal((mask > 0)[apart], (expected > threshold)[apart])
    assert f'{category}: 4 images, checked; k8 above ' in printed.out
  assert len(contents(folder)) == len(PRESENT) * len(STEMS) * 2


def test_the_archive_is_what_the_server_takes(submitted):
  output, printed = submitted
  folder = output / 'submission'
  with tarfile.open(output / 'submission.tar.gz') as tar:
    names = {member.name for member in tar.getmembers()}
  assert names == {f'submission/{path.relative_to(folder)}' for path in contents(folder)}
  kinds = (('anomaly_images', 'tiff'), ('anomaly_images_thresholded', 'png'))
  assert names == {
    f'submission/{kind}/{category}/{stem}.{suffix}'
    for kind, suffix in kinds
    for category in PRESENT
    for stem in STEMS
  }
  assert f'written: {output / "submission.tar.gz"}, ' in printed.out
  assert printed.out.splitlines()[-1].startswith('not confirmed: ')
  assert sorted(path.name for path in output.iterdir()) == [
    'submission',
    'submission.json',
    'submission.tar.gz',
  ]


def test_a_run_that_was_stopped_goes_on(submitted, place, monkeypatch, caplog):
  output, _ = submitted
  before = contents(output / 'submission')
  vial = submission.paths(output / 'submission', 'vial', f'{STEMS[2]}.png')
  kept = submission.paths(output / 'submission', 'vial', f'{STEMS[3]}.png')[submission.MAPS]
  old = kept.stat().st_mtime_ns
  # As a kill may leave it: the map is there, its mask is not; another is half written.
  vial[submission.THRESHOLDED].unlink()
  half = kept.with_name(kept.name + files.UNFINISHED)
  half.write_bytes(b'half')
  written = []
  write = submission.write
  monkeypatch.setattr(submission, 'write', lambda *a: (written.append(a[1:3]), write(*a)))
  assert submit(place / 'all', output) == 0
  assert written == [('vial', f'{STEMS[2]}.png')]
  assert contents(output / 'submission') == before
  assert kept.stat().st_mtime_ns == old
  assert 'begins anew' not in caplog.text


def test_an_interrupt_leaves_no_archive_and_only_whole_files(place, tmp_path, monkeypatch):
  output, write = tmp_path / 'out', submission.write

  def stop(folder, category, name, *more):
    if (category, name) == ('vial', f'{STEMS[1]}.png'):
      raise KeyboardInterrupt
    write(folder, category, name, *more)

  monkeypatch.setattr(submission, 'write', stop)
  assert submit(place / 'all', output) == 130
  assert len(contents(output / 'submission')) == 2 * (len(STEMS) + 1)
  assert not (output / 'submission.tar.gz').exists()
  assert json.loads((output / 'submission.json').read_text())['vial']['whole'] is False
  monkeypatch.setattr(submission, 'write', write)
  assert submit(place / 'all', output) == 0
  assert (output / 'submission.tar.gz').exists()


def test_a_category_of_another_detector_begins_anew(submitted, place, caplog):
  output, _ = submitted
  before = contents(output / 'submission')
  (output / 'submission.tar.gz').write_bytes(b'of the files before')
  more = '--pixel-false-alarm-rate=0.5'
  assert submit(place / 'all' / 'vial', output, more) == 0
  assert 'vial begins anew: pixel false-alarm rate changed' in caplog.messages
  after = contents(output / 'submission')
  changed = {path.parts[-3] for path in before if before[path] != after[path]}
  assert changed == {'vial'}
  assert tarfile.is_tarfile(output / 'submission.tar.gz')
  # The same with another detector.
  record = json.loads((output / 'submission.json').read_text())
  record['vial']['made_with']['detector'] = 'another'
  (output / 'submission.json').write_text(json.dumps(record))
  assert submit(place / 'all' / 'vial', output, more) == 0
  assert 'vial begins anew: detector changed' in caplog.messages
  assert not any(text.startswith('can') for text in caplog.messages)


def test_categories_come_one_by_one(place, tmp_path, capsys):
  output = tmp_path / 'out'
  assert submit(place / 'all' / 'vial', output) == 0
  out = capsys.readouterr().out
  assert 'not packed: the server asks for can too: add them to this --output' in out
  assert not (output / 'submission.tar.gz').exists()
  # What an earlier run has written is checked again before all is packed.
  path = submission.paths(output / 'submission', 'vial', f'{STEMS[0]}.png')[submission.MAPS]
  whole = path.read_bytes()
  path.write_bytes(b'')
  assert submit(place / 'all' / 'can', output) == 2
  assert f'error: {path}: is damaged (' in capsys.readouterr().err
  assert not (output / 'submission.tar.gz').exists()
  path.write_bytes(whole)
  assert submit(place / 'all' / 'can', output) == 0
  assert (output / 'submission.tar.gz').exists()


def test_one_detector_of_all_and_images_elsewhere(place, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(place / 'all' / 'vial', workdir)
  with_data(workdir, category='multiclass')
  shutil.copytree(place / 'root', tmp_path / 'moved')
  assert submit(workdir, tmp_path / 'out', f'--data={tmp_path / "moved"}') == 0
  record = json.loads((tmp_path / 'out' / 'submission.json').read_text())
  assert [entry['root'] for entry in record.values()] == [str(tmp_path / 'moved')] * 2
  assert record['can']['made_with']['detector'] == record['vial']['made_with']['detector']


def broken(path):
  path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda root: (root / f'vial/{STEMS[3]}.png').unlink(), '1 missing (001_mixed); take the'),
    (lambda root: broken(root / f'vial/{STEMS[0]}.png'), '000_regular.png: is damaged'),
    (
      lambda root: shutil.rmtree(root / 'vial/test_private'),
      '2 missing (000_regular, 001_regular)',
    ),
  ],
)
def test_images_that_are_not_as_published(place, tmp_path, capsys, change, words):
  shutil.copytree(place / 'root', tmp_path / 'moved')
  change(tmp_path / 'moved')
  capsys.readouterr()
  assert submit(place / 'all', tmp_path / 'out', f'--data={tmp_path / "moved"}') == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('error: ')
  assert words in error
  assert not (tmp_path / 'out' / 'submission.tar.gz').exists()


def test_folders_of_others_are_left_alone(place, tmp_path, capsys):
  (tmp_path / 'out' / 'submission').mkdir(parents=True)
  assert submit(place / 'all', tmp_path / 'out') == 2
  assert 'submission is not known to be of submit: name another --output' in capsys.readouterr().err
  (tmp_path / 'out' / 'submission.json').write_text('[]')
  assert submit(place / 'all', tmp_path / 'out') == 2
  assert 'submission.json is no file of submit' in capsys.readouterr().err


def test_runs_of_other_data(place, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(place / 'all' / 'vial', workdir)
  for changes, words in (
    ({'root': ''}, 'config.data.root is not set: give --data'),
    ({'name': 'mvtec'}, 'run is of mvtec: only of mvtec_ad_2 maps are submitted'),
  ):
    with_data(workdir, **changes)
    assert submit(workdir, tmp_path / 'out') == 2
    assert words in capsys.readouterr().err


def table(out, title):
  """The rows of the table whose first column has a title."""
  lines = out[out.index(f'| {title}') :].partition('\n\n')[0].splitlines()
  cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if '|' in line]
  return {first: others for first, *others in cells[2:]}


def test_lights_are_measured_by_themselves(place, tmp_path, capsys):
  """By scikit-learn's figures of each light's images."""
  shutil.copytree(place / 'all' / 'vial', tmp_path / 'run')
  capsys.readouterr()
  assert main(['eval', f'--workdir={tmp_path / "run"}', '--no-random-encoder']) == 0
  printed = table(capsys.readouterr().out, 'light (k8)')
  found = json.loads((tmp_path / 'run/eval/metrics.json').read_text())['per_lighting']['k8']
  with np.load(tmp_path / 'run/eval/maps.npz') as arrays:
    names, labels, scores = arrays['names'], arrays['labels'], arrays['k8_score']
  assert list(found) == list(printed) == ['regular', 'shift_1']
  for light, figures in found.items():
    own = np.char.endswith(names, f'_{light}.png')
    assert own.sum() == 2
    assert figures['image_auroc'] == roc_auc_score(labels[own], scores[own])
    assert printed[light][0] == f'{figures["image_auroc"]:.4f}'
  report = (tmp_path / 'run/eval/report.html').read_text()
  assert 'Lights, each among its own images (k8)' in report
  assert main(['light', f'--workdir={tmp_path / "run"}']) == 0
  [(light, [_, ratio])] = table(capsys.readouterr().out, 'light').items()
  assert light == 'shift_1'
  [regular], [other] = (scores[names == f'test_public/good/000_{each}.png'] for each in found)
  assert float(ratio) == pytest.approx(float(other / regular), abs=1e-3)
