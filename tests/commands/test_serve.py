"""The whole server around a small real detector, as the command line starts and ends it."""

import argparse
import dataclasses
import io
import os
import signal
import socket
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

import patch_svdd_jax
from patch_svdd_jax import commands, data
from patch_svdd_jax.commands import serve
from patch_svdd_jax.data import arrays
from patch_svdd_jax.detection import calibration, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models import encoder
from tests.support.runs import IMAGE_SIZE, IMAGES, tiny_config

OTHERS = np.random.default_rng(1).integers(0, 256, (6, *IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def detector():
  config = tiny_config(scales=(8,))
  config.data.resize = 'box'
  config.score.update(strides=(8,), batch_size=1)
  fitted = Detector.fit(config, encoder.init_encoder(config), IMAGES, step=3)
  scores = fitted.score(IMAGES[:4])
  looks = {name: np.arange(9.0) for name in (*data.appearance.NAMES, *scores.norms)}
  found = calibration.calibrate(scores.images['k8'], scores.maps['k8'], looks)
  return dataclasses.replace(fitted, calibration=found)


@pytest.fixture(scope='module')
def workdir(detector, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  detector.save(folder)
  return folder


def free_port():
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


def png(image):
  encoded = io.BytesIO()
  Image.fromarray(image).save(encoded, 'PNG')
  return encoded.getvalue()


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT])
def test_answers_are_the_detectors_and_a_signal_ends_it_in_order(detector, workdir, capsys, end):
  address, found = f'http://127.0.0.1:{(port := free_port())}', {}

  def ask():
    deadline = time.monotonic() + 60
    while 'health' not in found and time.monotonic() < deadline:
      try:
        found['health'] = httpx.get(f'{address}/health').json()
      except httpx.ConnectError:
        time.sleep(0.05)
    for number, image in enumerate(OTHERS):
      answer = httpx.post(f'{address}/score', files={'image': (f'{number}.png', png(image))})
      found[number] = answer.json()
    os.kill(os.getpid(), end)

  handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
  client = threading.Thread(target=ask, daemon=True)
  client.start()
  options = ['--false-alarm-rate', '0.3', '--pixel-false-alarm-rate', '0.3']
  told, writer = socket.socketpair()
  writer.setblocking(False)
  before = signal.set_wakeup_fd(writer.fileno())
  assert commands.main(['serve', '--model', str(workdir), '--port', str(port), *options]) == 0
  client.join(10)
  signal.set_wakeup_fd(before)
  with told, writer:  # once: the process of a command ends at once when a second signal comes
    assert told.recv(10) == bytes([end])
  assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
  shown = capsys.readouterr()
  assert f'serving {workdir} on {address} (Ctrl-C ends it)' in shown.out
  assert shown.out.endswith('ended\n')
  assert 'Traceback' not in shown.err

  limit = inspection.limits(detector, 0.3, 0.3)
  split = arrays.resized(list(OTHERS), detector.config.data, arrays.numbered(len(OTHERS)))
  expected = inspection.inspect(detector, split, limit)
  for number in range(len(OTHERS)):
    assert found[number]['image'] == f'{number}.png'
    assert found[number]['score'] == pytest.approx(float(expected.scores[number]), rel=1e-5)
    assert found[number]['p_value'] == expected.p_values[number]
    assert found[number]['verdict'] == ('alarm' if expected.alarms[number] else 'pass')
    assert len(found[number]['regions']) == len(expected.regions[number])
    assert found[number]['warnings']  # noise is not like 0 to 8 grey levels
  health = found['health']
  assert health['threshold']['value'] == limit.image.value
  assert health['calibration_images'] == 4
  assert health['model'] == {'name': workdir.name, 'step': 3, 'images': detector.origin.images}


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(tmp_path, capsys):
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = str(taken.getsockname()[1])
    assert commands.main(['serve', '--model', str(tmp_path / 'none'), '--port', port]) == 2
  assert 'in use): give another --port or --host' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--port', '0'], 'no fitted detector'),
    (['--port', '0', '--max-megapixels', '90'], '--max-megapixels 90: give at most 89'),
    (['more'], "unexpected argument 'more'"),
  ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, arguments, words):
  assert commands.main(['serve', '--model', str(tmp_path), *arguments]) == 2
  assert words in capsys.readouterr().err


def test_what_is_missing_is_said(tmp_path, capsys, monkeypatch):
  # What the import below leaves there is taken away again.
  monkeypatch.setattr(patch_svdd_jax, 'serving', getattr(patch_svdd_jax, 'serving', None), False)
  for name in [*sys.modules]:
    if name.startswith('patch_svdd_jax.serving'):
      monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'fastapi', None)
  assert commands.main(['serve', '--model', str(tmp_path)]) == 2
  assert "fastapi is missing: pip install 'patch_svdd_jax[serve]'" in capsys.readouterr().err


def test_numbers_are_checked():
  assert serve.positive('8') == 8
  for text in ('0', '-1', '1.5', 'many', ''):
    with pytest.raises(argparse.ArgumentTypeError, match='no whole number above 0'):
      serve.positive(text)
