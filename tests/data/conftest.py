"""Tiny folders in the layout of MVTec AD, and configs to load them."""

import pathlib

import ml_collections
import numpy as np
import pytest
from PIL import Image


def pixels(seed, height=12, width=10):
  """u8[height, width, 3] that differs for every seed."""
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: pathlib.Path, array) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)
  return path


@pytest.fixture
def make_category():
  """Writes 3 training, 2 good and 2 + 1 defective test images, one of which has no mask."""

  def make(folder: pathlib.Path) -> pathlib.Path:
    for i in range(3):
      save(folder / f'train/good/{i:03}.png', pixels(i))
    for i in range(2):
      save(folder / f'test/good/{i:03}.png', pixels(10 + i))
      save(folder / f'test/scratch/{i:03}.png', pixels(20 + i))
      mask = np.zeros((12, 10), np.uint8)
      mask[2 : 4 + i, 3:7] = 255
      save(folder / f'ground_truth/scratch/{i:03}_mask.png', mask)
    save(folder / 'test/hole/000.png', pixels(30))
    return folder

  return make


@pytest.fixture
def settings(tmp_path):
  """Returns config.data with some settings replaced; images keep the tiny category's size."""

  def make(**changes) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(
      {
        'name': 'folder',
        'category': '',
        'root': '',
        'prepared': str(tmp_path / 'prepared'),
        'image_size': (12, 10),
        'resize': 'bicubic',
        'light': 'kept',
        'normal_images': 0,
        'held_out': 0.0,
      }
    )
    config.update(changes)
    return config

  return make
