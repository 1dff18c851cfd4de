"""`patch-svdd watch` on a tiny model: what it writes, sends and says, and how it goes on."""

import csv
import json
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import main
from tests.line.receivers import Hook, free_port
from tests.support.runs import tiny_config

SIZE = (40, 48)


def photograph(seed, defect=False):
  """A noisy u8[40, 48, 3]."""
  rng = np.random.default_rng(seed)
  image = np.clip(rng.normal(120, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)
  if defect:
    image[10:20, 15:30] = 255
  return image


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """The workdir of a calibrated detector."""
  workdir = tmp_path_factory.mktemp('model')
  config = tiny_config(scales=(8,), mean='channel', steps=2, every=2)
  config.score.update(strides=(8,), batch_size=1)  # 4 devices
  config.calibration.folds = 2
  PatchSVDD.fit([photograph(i) for i in range(24)], config, workdir=workdir)
  return workdir


@pytest.fixture
def place(tmp_path):
  folder = tmp_path / 'incoming'
  folder.mkdir()
  return folder


def write(folder, number, defect=False):
  Image.fromarray(photograph(100 + number, defect)).save(folder / f'{number:03d}.png')


def lines(output):
  found = (output / 'results.jsonl').read_text() if (output / 'results.jsonl').exists() else ''
  return [json.loads(line) for line in found.splitlines()]


def watch(model, output, *arguments, until=None, meanwhile=lambda: None, end=signal.SIGINT):
  """The status of a run that is ended once so many lines are there, or by itself."""

  def stop():
    deadline = time.monotonic() + 60
    meanwhile()
    while len(lines(output)) < until and time.monotonic() < deadline:
      time.sleep(0.02)
    os.kill(os.getpid(), end)

  thread = threading.Thread(target=stop, daemon=True)
  if until is not None:
    thread.start()
  options = ['--model', str(model), '--output', str(output), '--false-alarm-rate', '0.1']
  status = main(['watch', *options, *map(str, arguments)])
  if until is not None:
    thread.join(10)
  return status


def test_images_get_lines_as_they_arrive_and_are_sent_on(
  model, place, tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv('PATCH_SVDD_WEBHOOK_SECRET', 'secret')
  output = tmp_path / 'found'
  write(place, 0)
  write(place, 1, defect=True)

  def arrive():
    while len(lines(output)) < 2:
      time.sleep(0.02)
    (place / 'sub').mkdir()
    write(place / 'sub', 2, defect=True)

  options = ['--move', '--patience', 0.5, '--json', '--webhook']
  with Hook(lambda number: 503 if number == 1 else 204) as hook:
    (place / 'bad.png').write_bytes(b'?')
    status = watch(model, output, *options, hook.url, place, until=4, meanwhile=arrive)
  shown = capsys.readouterr()
  assert status == 1  # a file could not be read
  found = lines(output)
  assert {line['image']: line.get('verdict') for line in found} == {
    '000.png': 'pass',
    '001.png': 'alarm',
    'bad.png': None,
    'sub/002.png': 'alarm',
  }
  assert [json.loads(line) for line in shown.out.splitlines()] == found == hook.accepted
  assert len(hook.posts) == 5
  assert '4 images: 2 alarms, 1 could not be read' in shown.err
  assert 'from arrival to verdict: p50' in shown.err
  assert 'webhook is away (HTTP 503)' in shown.err
  there = sorted(path.relative_to(place).as_posix() for path in place.rglob('*.png'))
  assert there == ['bad.png', 'bad/001.png', 'bad/sub/002.png', 'good/000.png']
  for line in found:
    assert ('picture' in line) == (line.get('verdict') == 'alarm')
    for kind in ('masks', 'overlays') if 'picture' in line else ():
      assert (output / kind / line['picture']).exists()
  with (output / 'results.csv').open(newline='') as file:
    assert [row['image'] for row in csv.DictReader(file)] == [line['image'] for line in found]
  assert 'sub/002.png #' in (output / 'report.html').read_text()
  detector = PatchSVDD.load(model)
  direct = detector.predict([photograph(100)], false_alarm_rate=0.1)
  scores = {line['image']: line.get('score') for line in found}
  assert scores['000.png'] == pytest.approx(float(direct.scores[0]), rel=1e-5)

  # The same command goes on: numbers too, and what could not be read is left alone.
  write(place, 3)
  assert watch(model, output, '--move', place, until=5, end=signal.SIGTERM) == 0
  shown = capsys.readouterr()
  assert '1 images: 0 alarms' in shown.out
  assert '4 earlier results' in (output / 'report.html').read_text()
  assert [line['id'][-1] for line in lines(output)] == list('12345')
  assert 'Traceback' not in shown.err

  # Another command's results are none of its business, nor are these of another command.
  arguments = ['predict', '--model', str(model), '--output', str(output), str(place / 'good')]
  assert main(arguments) == 2
  assert len(lines(output)) == 5


def test_what_a_receiver_missed_it_gets_after_a_restart(
  model, place, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('PATCH_SVDD_WEBHOOK_SECRET', 'secret')
  output, port = tmp_path / 'found', free_port()
  write(place, 0)
  arguments = ['--poll', '--webhook', f'http://127.0.0.1:{port}/', place]
  assert watch(model, output, *arguments, until=1) == 0
  assert 'webhook: 1 results wait for the next start' in capsys.readouterr().out
  write(place, 1)
  with Hook(port=port) as hook:
    assert watch(model, output, *arguments, until=2) == 0
  assert [line['image'] for line in hook.accepted] == ['000.png', '001.png']


@pytest.fixture
def video(tmp_path):
  """Twelve frames, of which the last six have a defect, at 20 a second."""
  path = tmp_path / 'line.avi'
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 20, SIZE[::-1])
  for number in range(12):
    writer.write(photograph(number, defect=number >= 6))
  writer.release()
  return path


def test_frames_of_a_video(model, video, tmp_path, capsys):
  output = tmp_path / 'found'
  assert watch(model, output, '--camera', video, '--keep', 'all') == 0
  found = lines(output)
  shown = capsys.readouterr().out
  dropped = int(shown.split(' frames dropped')[0].split()[-1]) if 'dropped' in shown else 0
  assert len(found) + dropped == 12
  numbers = [int(line['image'].rpartition('-')[2].removesuffix('.png')) for line in found]
  assert numbers == sorted(set(numbers))
  assert numbers[-1] == 11
  assert found[-1]['verdict'] == 'alarm'
  assert 'digest' not in found[0]
  frames = sorted(path.name for path in (output / 'frames').iterdir())
  assert frames == [line['image'] for line in found]


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], 'give a folder, or --camera'),
    (['in', '--camera', '0'], 'give a folder, or --camera'),
    (['none'], 'no such folder'),
    (['--camera', '0', '--move'], 'a camera has none'),
    (['in', '--output', '.'], 'lies in'),
    (['in', '--webhook', 'http://a/'], 'set PATCH_SVDD_WEBHOOK_SECRET'),
    (['in', '--webhook', 'http://a/', '--webhook-secret-file', 'none'], 'give a file'),
    (['in', '--mqtt', 'broker'], '--mqtt: give HOST/TOPIC'),
    (['in'], 'no fitted detector'),
  ],
)
def test_what_does_not_fit_is_said_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'in').mkdir()
  assert main(['watch', '--model', 'run', '--output', 'found', *arguments]) == 2
  shown = capsys.readouterr()
  assert words in shown.err
  assert shown.err.count('\n') == 1
