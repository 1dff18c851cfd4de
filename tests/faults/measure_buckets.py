"""Measures one training on a local disk and in buckets: seconds, and requests by their method.

Then how long `laptop:brick` takes to its first step, at its first start and at its second one, for
which compiled programs have been kept.

python -m tests.faults.measure_buckets
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from tests.faults import programs
from tests.support import stores

REPEATS = 3
STEPS = ['--config.train.steps=20000', '--config.checkpoint.every=5000']


def main():
  """Prints a line for each kind of place; they take turns, medians count."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    images = programs.write(folder / 'parts', good=2, bad=2)
    (folder / 'google').mkdir()
    (folder / 'amazon').mkdir()
    with (
      stores.GoogleStore(folder / 'google') as google,
      stores.AmazonStore(folder / 'amazon') as amazon,
    ):
      measured = {str(folder / 'disk'): [], google.place: [], amazon.place: []}
      requests = {}
      variables = os.environ | google.variables() | amazon.variables() | {'JAX_PLATFORMS': 'cpu'}
      for number in range(REPEATS + 1):
        for place, seconds in measured.items():
          store = {google.place: google, amazon.place: amazon}.get(place)
          before = store.requests() if store else {}
          begun = time.monotonic()
          arguments = programs.train(images, f'{place}/{number}', *STEPS)
          subprocess.run(
            [sys.executable, '-m', 'patch_svdd_jax', *arguments], env=variables, check=True
          )
          # The first one of all compiles for the others.
          if number:
            seconds.append(time.monotonic() - begun)
          requests[place] = store.requests() - before if store else {}
      for place, seconds in measured.items():
        print(f'{place}: {np.median(seconds):.1f} s, {dict(requests[place])}')
      for index, place in enumerate(measured):
        starts = [[], []]
        for number in range(REPEATS):
          cache = variables | {'XDG_CACHE_HOME': str(folder / f'cache {index} {number}')}
          for seconds, name in zip(starts, ('first', 'second'), strict=True):
            seconds.append(first_step(f'{place}/{name} {number}', cache))
        first, second = (np.median(seconds) for seconds in starts)
        print(f'{place}: first step after {first:.1f} s, at the second start {second:.1f} s')


def first_step(workdir, variables):
  """Seconds from the start of a process until its bar shows the loss of a step."""
  begun = time.monotonic()
  arguments = ['train', '--config', 'laptop:brick', '--workdir', workdir]
  command = [sys.executable, '-m', 'patch_svdd_jax', *arguments]
  with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as process:
    shown = b''
    while b'loss' not in shown:
      shown += process.stderr.read1()
    seconds = time.monotonic() - begun
    process.kill()
  return seconds


if __name__ == '__main__':
  main()
