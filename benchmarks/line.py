"""Thousands of images through `patch-svdd watch`, with a receiver that fails at random.

A process of `watch` scores noise of --size pixels as files arrive, --rate a second, with a small
encoder of random weights; it moves them, and posts each result to a server that refuses a share of
all posts, and is away altogether for --away seconds. Then nothing may be lost or twice: neither
lines, files nor posts. Memory is that of the process (RSS) after a tenth of the images and after
all; latencies are those of its lines, from the arrival of a file until its line is on disk.

  python -m benchmarks.line
  python -m benchmarks.line --images 600 --rate 5 --away 60
"""

import argparse
import collections
import http.server
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
import psutil
from PIL import Image

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.configs import default


class Receiver(http.server.ThreadingHTTPServer):
  """Takes posts, but for a share of them, and none while it is away.

  Attributes:
    got: how often each event was taken, in order.
    refused: how many posts were not.
    away: whether it is.
  """

  daemon_threads = True

  def __init__(self, failing: float):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.got: collections.Counter[str] = collections.Counter()
    self.refused, self.away = 0, False
    self._failing, self._random = failing, random.Random(0)
    threading.Thread(target=self.serve_forever, daemon=True).start()

  def takes(self, event_id: str) -> bool:
    """Takes an event, or not."""
    if self.away or self._random.random() < self._failing:
      self.refused += 1
      return False
    self.got[event_id] += 1
    return True


class _Handler(http.server.BaseHTTPRequestHandler):
  server: Receiver

  def do_POST(self) -> None:
    """Answers a post."""
    self.rfile.read(int(self.headers['content-length']))
    self.send_response(204 if self.server.takes(self.headers['webhook-id']) else 503)
    self.end_headers()

  def log_message(self, *_: object) -> None:
    """Says nothing."""


def photograph(size: int, seed: int) -> np.ndarray:
  """Returns noise u8[size, size, 3], with a white square in one image of twenty."""
  image = np.clip(np.random.default_rng(seed).normal(120, 20, (size, size, 3)), 0, 255)
  if seed % 20 == 0:
    image[size // 4 : size // 2, size // 4 : size // 2] = 255
  return image.astype(np.uint8)


def make_model(workdir: pathlib.Path, size: int) -> None:
  """Saves a small detector of random weights."""
  config = default.get_config()
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=1, steps_per_call=1, batch_size=8, crop_size=32, crops=4)
  config.score.update(strides=(8,), batch_size=16)
  config.calibration.folds = 2
  PatchSVDD.fit([photograph(size, 10**6 + 2 * i + 1) for i in range(40)], config, workdir=workdir)


def records(output: pathlib.Path) -> list[dict[str, object]]:
  """Returns the lines that there are."""
  if not (output / 'results.jsonl').exists():
    return []
  text = (output / 'results.jsonl').read_text()
  return [json.loads(line) for line in text[: text.rfind('\n') + 1].splitlines()]


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints what came of it."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--images', type=int, default=10_000)
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--rate', type=float, default=50.0)
  parser.add_argument('--failing', type=float, default=0.1, help='share of posts that are refused')
  parser.add_argument('--away', type=float, default=0.0)
  options = parser.parse_args(arguments)
  with tempfile.TemporaryDirectory() as name:
    run(options, pathlib.Path(name))


def run(options: argparse.Namespace, folder: pathlib.Path) -> None:
  """Does as `main` in a folder."""
  make_model(folder / 'model', options.size)
  place, output, receiver = folder / 'in', folder / 'found', Receiver(options.failing)
  place.mkdir()
  url = f'http://127.0.0.1:{receiver.server_port}/'
  command = ['watch', '--model', folder / 'model', '--output', output, '--move', '--webhook', url]
  rates = ['--false-alarm-rate', '0.05', '--pixel-false-alarm-rate', '0.05']
  process = subprocess.Popen(
    [sys.executable, '-m', 'patch_svdd_jax', *map(str, command), *rates, place],
    env=os.environ | {'PATCH_SVDD_WEBHOOK_SECRET': 'secret'},
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stderr
  for line in process.stderr:
    if line.startswith('watching'):
      break
  said: list[str] = []
  reader = threading.Thread(target=lambda: said.extend(process.stderr or []), daemon=True)
  reader.start()
  memory = {}
  begun = time.monotonic()
  if options.away:
    receiver.away = True
    threading.Timer(options.away, setattr, (receiver, 'away', False)).start()
  for number in range(options.images):
    Image.fromarray(photograph(options.size, number)).save(place / f'{number:06d}.png')
    time.sleep(max(0.0, begun + (number + 1) / options.rate - time.monotonic()))
    if number + 1 in (options.images // 10, options.images):
      while len(records(output)) <= number:
        time.sleep(0.1)
      memory[number + 1] = psutil.Process(process.pid).memory_info().rss
  arrived = time.monotonic() - begun
  while len(receiver.got) < options.images and process.poll() is None:
    time.sleep(0.1)
  sent = time.monotonic() - begun
  process.send_signal(signal.SIGINT)
  status = process.wait()
  reader.join()
  print(f'status {status}; {options.images:,} images in {arrived:.0f} s')
  report(records(output), place, receiver, options.images)
  print(f'the last post {sent - arrived:.1f} s after the last image')
  sizes = ', '.join(f'{bytes_ / 2**20:.1f} MiB after {n:,}' for n, bytes_ in memory.items())
  print(f'memory: {sizes}')
  away = [line.strip() for line in said if re.search(' is (away|back)|Traceback', line)]
  for line in away if options.away else away[:1]:
    print(f'it said: {line}')


def report(
  found: Sequence[Mapping[str, object]], place: pathlib.Path, receiver: Receiver, images: int
) -> None:
  """Prints what became of the images: lines, files, posts, seconds."""
  lines = collections.Counter(str(each['image']) for each in found)
  moved = sum(len(list((place / each).iterdir())) for each in ('good', 'bad'))
  wanted = {f'{number:06d}.png' for number in range(images)}
  order = list(receiver.got) == sorted(receiver.got)
  seconds = [float(str(each['seconds'])) for each in found]
  p50, p95, longest = np.quantile(seconds, (0.5, 0.95, 1.0))
  print(f'without a line: {len(wanted - lines.keys())}; twice: {lines.total() - len(lines)}')
  print(f'moved to good/ and bad/: {moved:,}; left: {len(list(place.glob("*.png")))}')
  print(
    f'posts taken: {receiver.got.total():,} of {len(receiver.got):,} events, in order: {order}; '
    f'not taken: {receiver.refused:,}'
  )
  print(f'arrival to line: p50 {1e3 * p50:.0f} ms, p95 {1e3 * p95:.0f} ms, at most {longest:.2f} s')


if __name__ == '__main__':
  main()
