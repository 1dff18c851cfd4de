"""`patch-svdd predict` and `build-bank` on a tiny model: what is written, said, resumed."""

import csv
import dataclasses
import json
import os
import re
import shutil

import jax
import numpy as np
import psutil
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import main, predict
from patch_svdd_jax.data import images
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.scores import STAGES
from patch_svdd_jax.reporting.predictions import Predictions
from tests.support.runs import tiny_config

SIZE = (40, 48)
COUNT = 24


def photograph(seed, light=0.0):
  """A noisy u8[40, 48, 3]."""
  rng = np.random.default_rng(seed)
  return np.clip(rng.normal(120 + light, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)


def defective(seed):
  image = photograph(seed)
  image[10:20, 15:30] = 255
  return image


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """The workdir of a calibrated detector."""
  workdir = tmp_path_factory.mktemp('model')
  config = tiny_config(mean='channel', steps=2, every=2)
  config.score.update(strides=(8, 4), batch_size=1)  # 4 devices
  config.calibration.folds = 2
  PatchSVDD.fit([photograph(i) for i in range(COUNT)], config, workdir=workdir)
  return workdir


@pytest.fixture
def parts(tmp_path):
  """Four good images, two bad ones, one that is cut short."""
  folder = tmp_path / 'new parts'
  (folder / 'bäd').mkdir(parents=True)
  for i in range(4):
    Image.fromarray(photograph(100 + i)).save(folder / f'{i}.png')
  for i in range(2):
    Image.fromarray(defective(200 + i)).resize((96, 80)).save(folder / 'bäd' / f'{i}.png')
  whole = (folder / '3.png').read_bytes()
  (folder / 'cut.png').write_bytes(whole[: len(whole) // 2])
  return folder


def command(model, output, *places, rate='0.1', **options):
  others = [
    text for name, value in options.items() for text in (f'--{name.replace("_", "-")}', value)
  ]
  return [
    'predict',
    '--model',
    str(model),
    '--output',
    str(output),
    '--false-alarm-rate',
    rate,
    *others,
    *map(str, places),
  ]


def results(output):
  lines = [json.loads(line) for line in (output / 'results.jsonl').read_text().splitlines()]
  return {line['image']: line for line in lines}


def contents(output):
  """All that a run has left, by name."""
  return {
    path.relative_to(output).as_posix(): path.read_bytes()
    for path in output.rglob('*')
    if path.is_file()
  } | {f'{path.relative_to(output)}/': b'' for path in output.rglob('*') if path.is_dir()}


@pytest.fixture
def predicted(model, parts, tmp_path, capsys):
  status = main(command(model, tmp_path / 'found', parts))
  return status, results(tmp_path / 'found'), capsys.readouterr()


def test_every_image_gets_a_line(predicted, model, parts, tmp_path):
  status, found, printed = predicted
  assert status == 1  # a file could not be read
  assert list(found) == ['0.png', '1.png', '2.png', '3.png', 'bäd/0.png', 'bäd/1.png', 'cut.png']
  assert 'cut short' in found['cut.png']['error']
  assert '7 images: ' in printed.out
  assert '1 could not be read' in printed.out
  stages = ', '.join(rf'{name} [\d.,]+' for name in STAGES)
  last = printed.out.splitlines()[-1]
  assert re.match(rf'[\d.,]+ images/s; milliseconds an image: {stages}; [\d.,]+ in all', last)
  detector = PatchSVDD.load(model)
  for name in list(found)[:6]:
    direct = detector.predict([np.asarray(Image.open(parts / name))], false_alarm_rate=0.1)
    assert found[name]['score'] == pytest.approx(float(direct.scores[0]), rel=1e-5)
    assert found[name]['p_value'] == pytest.approx(direct.p_values[0])
    assert found[name]['verdict'] == ('alarm' if direct.alarms[0] else 'pass')
  assert found['bäd/0.png']['size'] == [96, 80]
  assert {found[f'bäd/{i}.png']['verdict'] for i in range(2)} == {'alarm'}
  with (tmp_path / 'found' / 'results.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['image'] for row in rows] == list(found)
  assert float(rows[4]['score']) == found['bäd/0.png']['score']


def test_regions_hold_the_defect_in_pixels_of_the_file(predicted):
  _, found, _ = predicted
  # The square lies at rows 20..40 and columns 30..60 of the file; patches spread it by half of K.
  left, top, width, height = found['bäd/0.png']['regions'][0]['box']
  assert left < 45 < left + width
  assert top < 30 < top + height
  assert found['bäd/0.png']['regions'][0]['area'] <= width * height


def test_the_report_has_every_image_that_could_be_read(predicted, tmp_path):
  _, found, printed = predicted
  html = (tmp_path / 'found' / 'report.html').read_text()
  for name in list(found)[:6]:
    assert f'data-name="{name}" data-score="{found[name]["score"]}"' in html
  assert html.count('alt="bäd/0.png: ') == 3
  assert html.count('<rect ') == sum(len(line.get('regions', ())) for line in found.values())
  assert '1 file could not be read' in html
  assert 'report.html' in printed.out.splitlines()[-2]


def test_pictures_of_alarms(predicted, tmp_path):
  _, found, _ = predicted
  alarms = sorted(name for name, line in found.items() if line.get('verdict') == 'alarm')
  for kind in ('masks', 'overlays'):
    folder = tmp_path / 'found' / kind
    pictures = [path.relative_to(folder).as_posix() for path in folder.rglob('*.png')]
    assert sorted(pictures) == alarms
  mask = np.asarray(Image.open(tmp_path / 'found' / 'masks' / 'bäd' / '0.png'))
  assert mask.shape == (80, 96)
  regions = found['bäd/0.png']['regions']
  assert np.count_nonzero(mask) == pytest.approx(sum(region['area'] for region in regions), abs=4)
  inside = np.zeros(mask.shape, bool)
  for left, top, width, height in (region['box'] for region in regions):
    inside[top : top + height, left : left + width] = True
  assert not (mask[~inside] > 0).any()


def test_pictures_of_all_and_of_none(model, parts, tmp_path):
  good = parts / '0.png'
  for which, count in (('all', 1), ('none', 0)):
    assert main(command(model, tmp_path / which, good, rate='0.05', pictures=which)) == 0
    assert len(list((tmp_path / which).rglob('overlays/*.png'))) == count


def test_a_run_that_was_stopped_goes_on(model, parts, tmp_path, monkeypatch, capsys):
  for i in range(4, 9):
    Image.fromarray(photograph(100 + i)).save(parts / f'{i}.png')
  taken = []
  real = predict.inspect

  def impatient(detector, split, limit, tally):
    if len(taken) == 2:
      raise KeyboardInterrupt
    taken.append(split.names)
    return real(detector, split, limit, tally)

  monkeypatch.setattr(predict, 'inspect', impatient)
  output = tmp_path / 'found'
  assert main(command(model, output, parts)) == 130
  assert not (output / 'results.jsonl').exists()
  scored = []

  def patient(detector, split, limit, tally):
    scored.extend(split.names)
    return real(detector, split, limit, tally)

  monkeypatch.setattr(predict, 'inspect', patient)
  assert main(command(model, output, parts)) == 1
  assert not set(scored) & set(taken[0])
  # The report shows what was scored before, too, with its map.
  html = (output / 'report.html').read_text()
  assert all(f'data-name="{name}"' in html for name in (*taken[0], *scored))
  whole = tmp_path / 'whole'
  assert main(command(model, whole, parts)) == 1
  assert contents(output) == contents(whole)


class Stop:
  """Interrupts a run once so many images were scored, and notes the names of all that were."""

  def __init__(self, monkeypatch):
    self.scored, self.after, self._real = [], 99, predict.inspect
    monkeypatch.setattr(predict, 'inspect', self)

  def __call__(self, detector, split, limit, tally):
    if len(self.scored) >= self.after:
      raise KeyboardInterrupt
    self.scored.extend(split.names)
    return self._real(detector, split, limit, tally)


@pytest.fixture
def stop(monkeypatch):
  return Stop(monkeypatch)


def remove(parts):
  (parts / '1.png').unlink()


def replace(parts):
  """A part that passed, by a defective one of equal size and times."""
  path, before = parts / '1.png', (parts / '1.png').stat()
  Image.fromarray(defective(7)).save(path, compress_level=0)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size


def another_day(parts):
  """Other images of the same names."""
  for index in range(4):
    Image.fromarray(defective(300 + index)).save(parts / f'{index}.png', compress_level=0)


def other_names(parts):
  for path in parts.glob('*.png'):
    path.rename(path.with_name(f'new {path.name}'))


def add(parts):
  Image.fromarray(defective(8)).save(parts / '0 first.png')
  Image.fromarray(photograph(9)).save(parts / 'bäd' / '9.png')


def repair(parts):
  Image.fromarray(photograph(9)).save(parts / 'cut.png')


CHANGES = {
  remove: '1 removed (1.png)',
  replace: '1 replaced (1.png)',
  another_day: '4 replaced (0.png, 1.png, 2.png and 1 more)',
  other_names: '4 removed (0.png, 1.png, 2.png and 1 more)',
  add: None,
  repair: None,
}


@pytest.mark.parametrize('change', CHANGES)
def test_no_verdict_of_other_images_survives(model, parts, tmp_path, stop, capsys, change):
  """The end is that of a run into an empty folder, or what differs is said."""
  for index in range(9):
    Image.fromarray(photograph(100 + index)).save(parts / f'{index}.png', compress_level=0)
  output, whole = tmp_path / 'found', tmp_path / 'whole'
  stop.after = 8  # of which the first four have lines
  assert main(command(model, output, parts, pictures='all')) == 130
  change(parts)
  stop.after, before = 99, contents(output)
  capsys.readouterr()
  restart = ()
  if CHANGES[change]:
    assert main(command(model, output, parts, pictures='all')) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if 'error' in line]
    assert error == (
      f'error: {output} holds unfinished results of other images, {CHANGES[change]}: --restart '
      'begins afresh, or give another --output'
    )
    assert contents(output) == before
    restart = ('--restart',)
  status = main([*command(model, output, parts, pictures='all'), *restart])
  # Over finished results of other images too, and of another choice of pictures.
  over = tmp_path / 'over'
  assert main(command(model, over, parts.parent / 'new parts' / 'bäd', pictures='all')) == 0
  assert main(command(model, over, parts, pictures='alarms')) == status
  assert main(command(model, whole, parts, pictures='alarms')) == status
  assert contents(over) == contents(whole)
  shutil.rmtree(whole)
  assert main(command(model, whole, parts, pictures='all')) == status
  assert contents(output) == contents(whole)


def test_an_unfinished_run_with_another_model_or_rate_is_refused(
  model, parts, tmp_path, stop, capsys
):
  detector, output = Detector.load(model), tmp_path / 'found'
  dataclasses.replace(
    detector, params=jax.tree.map(lambda leaf: 1.01 * leaf, detector.params)
  ).save(tmp_path / 'other')
  stop.after = 4
  assert main(command(model, output, parts)) == 130
  stop.after, before = 99, contents(output)
  for others, text in (
    (command(tmp_path / 'other', output, parts), 'another model'),
    (command(model, output, parts, rate='0.2'), 'another false-alarm rate (0.1, now 0.2)'),
    (
      command(model, output, parts, pixel_false_alarm_rate='0.05'),
      'another pixel false-alarm rate (0.01, now 0.05)',
    ),
    (
      command(model, output, parts, pictures='none'),
      'another choice of pictures (alarms, now none)',
    ),
  ):
    capsys.readouterr()
    assert main(others) == 2
    assert f'found holds unfinished results of {text}: --restart begins' in capsys.readouterr().err
    assert contents(output) == before
    assert main([*others, '--restart']) == 1
    assert main([*others[:4], str(tmp_path / 'whole'), *others[5:]]) == 1
    assert contents(output) == contents(tmp_path / 'whole')
    shutil.rmtree(output)
    shutil.rmtree(tmp_path / 'whole')
    stop.after = len(stop.scored) + 4
    assert main(command(model, output, parts)) == 130
    stop.after, before = 9999, contents(output)


def test_pictures_of_others_are_refused_before_anything_is_removed(model, parts, tmp_path, capsys):
  output = tmp_path / 'found'
  (output / 'masks').mkdir(parents=True)
  (output / 'masks' / 'truth.png').write_bytes(b'mine')
  for restart in ([], ['--restart']):
    assert main([*command(model, output, parts), *restart]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
      f'error: {output}/masks/truth.png is not of a prediction there: move it, or give another '
      '--output'
    )
    assert (output / 'masks' / 'truth.png').read_bytes() == b'mine'
  shutil.rmtree(output)
  assert main(command(model, output, parts / '0.png', pictures='all')) == 0
  assert main(command(model, output, output / 'overlays')) == 2
  assert f'{output}/overlays has the pictures of {output}: give' in capsys.readouterr().err
  assert (output / 'overlays' / '0.png').exists()


def test_images_of_nearly_one_name_have_their_own_pictures(model, tmp_path):
  folder = tmp_path / 'parts'
  (folder / 'x').mkdir(parents=True)
  for index, name in enumerate(('a.jpg', 'a.jpg.png', 'A.JPG', 'x/a.png', 'x_a.png')):
    Image.fromarray(defective(index)).save(folder / name)
  assert main(command(model, tmp_path / 'found', folder, pictures='all')) == 0
  for kind in ('masks', 'overlays'):
    pictures = [path for path in (tmp_path / 'found' / kind).rglob('*') if path.is_file()]
    assert len({str(path).casefold() for path in pictures}) == 5
    assert len({path.read_bytes() for path in pictures}) >= (5 if kind == 'overlays' else 1)


def test_an_output_within_the_images_is_not_scored_and_what_is_passed_over_is_said(
  model, parts, tmp_path, capsys
):
  (parts / 'list.xlsx').touch()
  (parts / '.hidden.png').touch()
  outside = tmp_path / 'store'
  outside.mkdir()
  Image.fromarray(photograph(1)).save(outside / 'l.png')
  (parts / 'linked').symlink_to(outside)
  output = parts / 'found'
  said = 'passed over: 1 file that is no image (.xlsx), 1 hidden'
  for earlier in ('', f', what earlier runs have written to {output}'):
    assert main(command(model, output, parts, pictures='all')) == 1
    assert f'{said}{earlier}\n' in capsys.readouterr().err
    assert len(results(output)) == 8
    assert 'linked/l.png' in results(output)
    assert said in (output / 'report.html').read_text()


def test_the_same_image_in_other_words(model, parts, tmp_path, monkeypatch):
  monkeypatch.chdir(parts / 'bäd')
  (tmp_path / 'link').symlink_to(parts)
  places = ['../0.png', '../bäd/../0.png', f'{tmp_path}/link/0.png', parts / '0.png', '.']
  assert main(command(model, tmp_path / 'found', *places, pictures='all')) == 0
  assert list(results(tmp_path / 'found')) == ['0.png', 'bäd/0.png', 'bäd/1.png']
  masks = tmp_path / 'found' / 'masks'
  pictures = {path.relative_to(masks).as_posix() for path in masks.rglob('*.png')}
  assert pictures == {'0.png', 'bäd/0.png', 'bäd/1.png'}


def test_a_file_that_a_decoder_fails_on_is_listed_alone(
  model, parts, tmp_path, monkeypatch, capsys
):
  real = images.decode_image

  def decode(content, name, within):
    if name.endswith('2.png'):
      raise MemoryError
    return real(content, name, within)

  monkeypatch.setattr(images, 'decode_image', decode)
  assert main(command(model, tmp_path / 'found', parts)) == 1
  found = results(tmp_path / 'found')
  assert {name for name, line in found.items() if 'error' in line} == {'2.png', 'cut.png'}
  assert 'cannot be decoded (MemoryError: ' in found['2.png']['error']
  assert 'Traceback' not in capsys.readouterr().err


def test_too_few_normal_images_for_the_rate(model, parts, tmp_path, capsys):
  assert main(command(model, tmp_path / 'found', parts / '0.png', rate='0.01')) == 0
  error = capsys.readouterr().err
  assert f'{COUNT} normal images cannot ensure a false-alarm rate of 0.01 for images' in error


def test_images_in_other_light_are_warned_of_as_a_batch(model, tmp_path, capsys):
  folder = tmp_path / 'dark'
  folder.mkdir()
  for i in range(12):
    Image.fromarray(photograph(300 + i, light=-40)).save(folder / f'{i}.png')
  assert main(command(model, tmp_path / 'found', folder)) == 0
  assert 'other light, camera or focus than in training? brightness' in capsys.readouterr().err
  assert 'other light, camera or focus' in (tmp_path / 'found' / 'report.html').read_text()
  warnings = [line['warnings'][0] for line in results(tmp_path / 'found').values()]
  assert all(text.startswith('brightness') for text in warnings)


def test_images_of_another_shape_are_named(model, tmp_path, capsys):
  wide = np.asarray(Image.fromarray(photograph(1)).resize((96, 40)))
  for name, pixels in (('usual.png', photograph(2)), ('wide.png', wide)):
    (tmp_path / 'new').mkdir(exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / 'new' / name)
  assert main(command(model, tmp_path / 'found', tmp_path / 'new', pictures='none')) == 0
  expected = '1 of 2 images have another aspect ratio than the training images (1.2, '
  assert expected in capsys.readouterr().err
  assert expected in (tmp_path / 'found' / 'report.html').read_text()
  found = results(tmp_path / 'found')
  assert any(text.startswith('stretched 2 times') for text in found['wide.png']['warnings'])
  assert not any(text.startswith('stretched') for text in found['usual.png']['warnings'])


def test_what_it_refuses(model, parts, tmp_path, capsys):
  for places, rate, text in (
    ([parts / 'nothing'], '0.1', 'no such file or folder'),
    ([parts], '1.5', 'false-alarm rate 1.5'),
  ):
    assert main(command(model, tmp_path / 'found', *places, rate=rate)) == 2
    assert text in capsys.readouterr().err
  assert main(command(tmp_path, tmp_path / 'found', parts)) == 2
  assert 'no fitted detector' in capsys.readouterr().err


def test_build_bank_calibrates_with_other_settings(model, parts, tmp_path, capsys):
  """On images of its own, which take the place of those it was trained on."""
  good = tmp_path / 'lit' / 'train' / 'good'
  good.mkdir(parents=True)
  for i in range(6):
    Image.fromarray(photograph(400 + i, light=60)).save(good / f'{i}.png')
  before = Detector.load(model)
  again = ['build-bank', '--workdir', str(model), '--config.data.name=folder']
  again += [f'--config.data.root={tmp_path / "lit"}']
  again += [f'--config.data.prepared={tmp_path / "prepared"}']
  try:
    assert main([*again, '--config.calibration.images=4']) == 0
    assert 'calibrated by 4 normal images: false-alarm rates from 0.2 up' in capsys.readouterr().out
    after = Detector.load(model)
    assert inspection.calibrated(after).images == 4
    assert min(after.calibration.statistics['brightness']) > 150
    for one, other in zip(before.params.values(), after.params.values(), strict=True):
      for name in one:
        np.testing.assert_array_equal(one[name]['kernel'], other[name]['kernel'])
    assert main([*again, '--config.calibration.images=0']) == 0
    assert main(command(model, tmp_path / 'found', parts)) == 2
    assert 'the detector is not calibrated' in capsys.readouterr().err
  finally:
    before.save(model)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(model, tmp_path, monkeypatch):
  folder = tmp_path / 'parts'
  folder.mkdir()
  for i in range(2000):
    image = defective(i) if i % 10 == 0 else photograph(i)
    Image.fromarray(image).resize((384, 320)).save(folder / f'{i}.png', compress_level=1)
  process, used, real = psutil.Process(), {}, Predictions.add

  def note(self, records, statistics):
    real(self, records, statistics)
    used[max(used, default=0) + len(records)] = process.memory_info().rss / 2**20

  monkeypatch.setattr(Predictions, 'add', note)
  assert main(command(model, tmp_path / 'found', folder)) == 0
  after_100 = max(mib for count, mib in used.items() if count <= 100)
  assert max(used) >= 1996
  assert max(used.values()) < after_100 + 16
