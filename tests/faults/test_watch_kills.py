"""Killed while files arrive and its receiver fails at random, watch loses nothing.

Each file has one line and lies where its verdict says, whole. The receiver has got each event, in
order, and what it got twice it had taken just before a kill.
"""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.system.digests import digest_bytes
from tests.faults import programs
from tests.line.receivers import Hook
from tests.support.runs import tiny_config

pytestmark = pytest.mark.slow

KILLS, BURST = 8, 40


def photograph(seed):
  rng = np.random.default_rng(seed)
  image = np.clip(rng.normal(120, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
  if seed % 4 == 0:
    image[10:20, 15:30] = 255
  return image


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('model')
  config = tiny_config(scales=(8,), mean='channel', steps=2, every=2)
  config.score.update(strides=(8,), batch_size=4)
  config.calibration.folds = 2
  PatchSVDD.fit([photograph(2 * i + 1) for i in range(24)], config, workdir=workdir)
  return workdir


class Producer:
  """Writes files in several ways, in bursts; notes the digest of each by its name."""

  def __init__(self, place, outside):
    self.place, self.outside, self.digests = place, outside, {}
    self._rng = random.Random(1)

  def burst(self):
    for _ in range(BURST):
      number = len(self.digests)
      name = f'{"sub/" * (number % 3 == 0)}{number:04d}.png'
      path = self.place / name
      path.parent.mkdir(parents=True, exist_ok=True)
      whole = self.outside / 'part.png'
      Image.fromarray(photograph(1000 + number)).save(whole)
      content = whole.read_bytes()
      if number % 2:
        whole.rename(path)
      else:
        half = self._rng.randrange(len(content))
        path.write_bytes(content[:half])
        time.sleep(self._rng.choice((0, 0.01, 0.08)))
        with path.open('ab') as file:
          file.write(content[half:])
      self.digests[name] = digest_bytes(content)


def records(output):
  found = (output / 'results.jsonl').read_bytes() if (output / 'results.jsonl').exists() else b''
  return [json.loads(line) for line in found.split(b'\n')[:-1]]


def wait_for(condition, process):
  deadline = time.monotonic() + 120
  while not condition():
    assert process.poll() is None, 'it has ended by itself'
    assert time.monotonic() < deadline
    time.sleep(0.005)


def test_nothing_is_lost_and_nothing_twice(model, tmp_path, environment):
  rng, output, place = random.Random(0), tmp_path / 'found', tmp_path / 'in'
  place.mkdir()
  producer = Producer(place, tmp_path)
  secret = {'PATCH_SVDD_WEBHOOK_SECRET': 'secret'}

  def start():
    options = ['--model', model, '--output', output, '--move', '--false-alarm-rate', '0.1']
    return subprocess.Popen(
      [sys.executable, '-m', 'patch_svdd_jax', 'watch', *options, '--webhook', hook.url, place],
      cwd=programs.ROOT,
      env=environment | secret,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )

  with Hook(lambda number: rng.choice((204, 204, 204, 500))) as hook:
    for kill in range(KILLS + 1):
      process, before = start(), len(records(output))
      arriving = threading.Thread(target=producer.burst)
      arriving.start()
      if kill < KILLS:
        wait_for(lambda before=before: len(records(output)) > before, process)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        arriving.join()
      else:
        arriving.join()
        wait_for(lambda: len(records(output)) == len(producer.digests), process)
        wait_for(
          lambda: len({each['id'] for each in hook.accepted}) == len(producer.digests), process
        )
        process.send_signal(signal.SIGINT)
      _, shown = process.communicate(timeout=60)
      assert 'Traceback' not in shown
    assert process.returncode == 0

  found = records(output)
  assert sorted(each['image'] for each in found) == sorted(producer.digests)
  assert [int(each['id'].split('-')[1]) for each in found] == [*range(1, len(found) + 1)]
  for each in found:
    folder = {'alarm': 'bad', 'pass': 'good'}[each['verdict']]
    moved = place / folder / each['image']
    assert digest_bytes(moved.read_bytes()) == each['digest'] == producer.digests[each['image']]
    assert ('picture' in each) == (folder == 'bad')
    if 'picture' in each:
      assert (output / 'overlays' / each['picture']).exists()
  names = {path.relative_to(place).as_posix() for path in place.rglob('*') if path.is_file()}
  assert {re.sub('^(good|bad)/', '', name) for name in names} == set(producer.digests)
  assert len(names) == len(producer.digests)
  numbers = [int(each['id'].split('-')[1]) for each in hook.accepted]
  steps = np.diff([0, *numbers])
  assert set(steps) <= {0, 1}
  assert numbers[-1] == len(found)
  assert np.count_nonzero(steps == 0) <= KILLS
