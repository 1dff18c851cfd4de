"""Tiny categories in the layout of MVTec AD."""

import pathlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 10
# Another number of steps for each category; images that the authors' encoder can embed are larger.
CONFIG = """
from patch_svdd_jax.configs import mvtec

def get_config(category):
  config = mvtec.get_config(category)
  config.data.image_size = (24, 20)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=len(category), steps_per_call=4, batch_size=4)
  config.checkpoint.every = 10
  config.score.strides = (8,)
  return config
"""


def pixels(*seed):
  """u8[HEIGHT, WIDTH, 3] that differs for every seed."""
  return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def save(path: pathlib.Path, array) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)
  return path


def write(folder: pathlib.Path, seed=0) -> pathlib.Path:
  """Writes 3 training, 2 good and 2 + 1 defective test images, one of which has no mask."""
  for i in range(3):
    save(folder / f'train/good/{i:03}.png', pixels(seed, i))
  for i in range(2):
    save(folder / f'test/good/{i:03}.png', pixels(seed, 10 + i))
    save(folder / f'test/scratch/{i:03}.png', pixels(seed, 20 + i))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2 : 4 + i, 3:7] = 255
    save(folder / f'ground_truth/scratch/{i:03}_mask.png', mask)
  save(folder / 'test/hole/000.png', pixels(seed, 30))
  return folder
