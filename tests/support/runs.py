"""A tiny training run that several tests share, and how states are compared."""

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.api import no_bars
from patch_svdd_jax.configs import default
from patch_svdd_jax.experiments import training_run
from patch_svdd_jax.system.sharding import DEVICES, SLICES

IMAGE_SIZE = (40, 48)
COUNT = 5  # no multiple of the devices
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *IMAGE_SIZE, 3), dtype=np.uint8)
MEAN = IMAGES.mean(axis=0, dtype=np.float32)


def tiny_config(seed=0, image_size=IMAGE_SIZE, scales=(16, 8), every=100, **train):
  """A config of few, small layers, whose programs compile in seconds."""
  config = default.get_config()
  config.seed = seed
  config.data.image_size = image_size
  config.checkpoint.every = every
  config.encoder.update(receptive_field=8, scales=scales, depth=2, width=0.25, embed_dim=8)
  settings = {'steps': 5, 'steps_per_call': 2, 'batch_size': 8, 'svdd_weight': 0.1}
  config.train.update(settings | {'crops': 4, 'crop_size': 32} | train)
  return config


def train_on_folder(place, images):
  """The workdir of a run on images u8[N, 32, 32, 3] in a folder, with a calibrated detector."""
  good = place / 'parts/train/good'
  good.mkdir(parents=True)
  for number, image in enumerate(images):
    Image.fromarray(image).save(good / f'{number:02}.png')
  config = tiny_config(image_size=(32, 32), scales=(8,), mean='channel', steps=2, every=2)
  config.data.update(name='folder', category='', root=str(place / 'parts'))
  config.data.prepared = str(place / 'prepared')
  config.score.update(strides=(8,), batch_size=1)
  config.train.crop_size = 24
  dataset = data.load(config.data)
  training_run.train(config, place / 'run', dataset, progress=no_bars, calibrated=True)
  return place / 'run'


def mesh_of(devices, slices=1):
  """So many devices in a row, or in a row for each slice."""
  here = np.array(jax.devices()[:devices])
  return Mesh(here.reshape(slices, -1), (SLICES, DEVICES)) if slices > 1 else Mesh(here, (DEVICES,))


def on_host(state):
  """A copy: the state itself is donated to the next step."""
  return jax.tree.map(np.array, state)


def leaves(tree):
  """The leaves by their names."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (name, one), other in zip(leaves(found).items(), jax.tree.leaves(expected), strict=True):
    assert np.array(one).dtype == np.array(other).dtype
    assert np.array(one).shape == np.array(other).shape
    assert np.array(one).tobytes() == np.array(other).tobytes(), name


def assert_close(found, expected, **tolerance):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (name, one), other in zip(leaves(found).items(), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, err_msg=name, **tolerance)


def moved(before, after):
  """Which leaves differ, by their names."""
  return {
    name: bool(np.any(one != other))
    for (name, one), other in zip(leaves(before).items(), jax.tree.leaves(after), strict=True)
  }
