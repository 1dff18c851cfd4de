"""A tiny config, tiny images, and the commands on them, in this process or in one of its own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
SIZE = (40, 48)

CONFIG = """
from patch_svdd_jax.configs import default

def get_config(root):
  config = default.get_config()
  config.data.update(name='folder', category='', root=root, prepared=root + '.prepared')
  config.data.image_size = (40, 48)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=4, steps_per_call=2, batch_size=4, svdd_weight=0.1)
  config.checkpoint.update(every=2, keep=9)
  config.score.update(strides=(8,), batch_size=1)
  config.calibration.folds = 2
  return config
"""


def noise(*seed):
  """u8[40, 48, 3] that differs for every seed."""
  return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def save(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('wb') as file:
    Image.fromarray(pixels).save(file, 'PNG')


def write(folder, train=3, good=1, bad=1):
  """Writes a category of so many images, with masks; returns its folder."""
  for index in range(train):
    save(folder / 'train' / 'good' / f'{index}.png', noise(0, index))
  for index in range(good):
    save(folder / 'test' / 'good' / f'{index}.png', noise(1, index))
  for index in range(bad):
    pixels, mask = noise(2, index), np.zeros(SIZE, np.uint8)
    pixels[10:20, 10:20], mask[10:20, 10:20] = 0, 255
    save(folder / 'test' / 'hole' / f'{index}.png', pixels)
    save(folder / 'ground_truth' / 'hole' / f'{index}_mask.png', mask)
  return folder


def config_for(root):
  """What --config takes: the config of the images in a folder, in a file beside it."""
  file = root.parent / f'{root.name}.py'
  file.write_text(CONFIG)
  return f'{file}:{root}'


def train(root, workdir, *others):
  return ['train', '--config', config_for(root), '--workdir', str(workdir), *others]


def evaluate(workdir, *others):
  return ['eval', '--workdir', str(workdir), *others]


def predict(model, output, *places):
  return ['predict', '--model', str(model), '--output', str(output), *map(str, places)]


def error_line(text):
  """The one line of the error, without what progress bars left before it."""
  assert 'Traceback' not in text, text
  [line] = [line for line in text.splitlines() if line.startswith('error: ')]
  return line


def metrics(workdir):
  """What metrics.jsonl says, but for the speeds."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [{k: v for k, v in line.items() if not k.endswith('_per_s')} for line in lines]


def variables(settings):
  """The environment in which a process compiles as this one does."""
  strict = {'jax_platforms': 'cpu', 'jax_numpy_rank_promotion': 'raise'}
  return os.environ | {name.upper(): str(value) for name, value in (settings | strict).items()}


def start(code, arguments, environment, *prefix):
  """Starts Python code in a process of its own."""
  return subprocess.Popen(
    [*prefix, sys.executable, '-c', code, *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
