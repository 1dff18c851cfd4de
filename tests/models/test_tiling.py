"""Images encoded in tiles against their patches one by one, and against whole images."""

import functools
import importlib.util
import json
import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, geometry, tiling
from patch_svdd_jax.system.compiled_memory import memory_of
from tests.detection.test_detector import (
  SIZE,
  STRIDES,
  corners,
  embed_patches,
  random_images,
  random_params,
  tiny_config,
)

PAIRED = dict(zip((32, 16), STRIDES, strict=True))


@functools.cache
def trained():
  """An encoder's shape and parameters."""
  config = tiny_config()
  return architecture.from_config(config.encoder), random_params(config)


def encode(images, mean, strides, tile):
  shape, params = trained()
  return jax.jit(embedding.make_encode(shape, strides, tile))(params, mean, images)


@pytest.mark.parametrize(
  ('strides', 'tile', 'tiles'),
  [
    ({32: 8, 16: 4}, 32, 20),  # as small as can be
    ({32: 8, 16: 4}, 40, 6),
    ({16: 4}, 40, 2),  # whole along one axis
    ({32: 12, 16: 8}, 47, 4),  # a scale whose patches begin between those of the other
    ({16: 2}, 33, 4),
    ({16: 32}, 20, 2),  # pixels that no patch sees
  ],
)
@pytest.mark.parametrize('kind', ['image', 'channel'])
def test_every_patch_is_as_by_itself(strides, tile, tiles, kind):
  # Neither the tiles nor the strides divide the sides.
  images = random_images(seed=1, count=2)
  rng = np.random.default_rng(2)
  mean = rng.uniform(100, 150, (*SIZE, 3) if kind == 'image' else (1, 1, 3)).astype(np.float32)
  assert tiling.count(SIZE, tile, strides) == tiles
  found = encode(images, mean, strides, tile)
  assert list(found) == sorted(strides)
  normalised = (images - mean.astype(np.float64)) / 255
  for k, stride in strides.items():
    assert found[k].shape == (2, *geometry.grid_shape(SIZE, k, stride), 8)
    patches = [normalised[:, i : i + k, j : j + k] for i, j in corners(SIZE, k, stride)]
    expected = embed_patches(np.concatenate(patches), trained()[1])
    expected = expected.reshape(len(patches), 2, -1).swapaxes(0, 1)
    np.testing.assert_allclose(found[k].reshape(expected.shape), expected, atol=2e-6, rtol=0)


def test_an_axis_is_covered_once_by_the_fewest_equal_tiles():
  rng = np.random.default_rng(0)
  for _ in range(300):
    strides = {int(k): int(rng.integers(1, 6)) * 2 for k in (8, 16, 32)[: rng.integers(1, 4)]}
    extent = int(rng.integers(max(strides), 400))
    tile = int(rng.integers(sum(tiling.smallest(strides)), 500))
    count, step, pixels = tiling.cut(extent, tile, strides)
    assert pixels <= tile
    starts = np.arange(count) * step
    for k, stride in strides.items():
      patches = np.arange(geometry.grid_extent(extent, k, stride)) * stride
      assert step % stride == 0
      # Each patch begins in one tile's block, which has all its pixels.
      block = patches // step
      assert (block < count).all()
      assert (patches + k <= starts[block] + pixels).all()
    # With one tile less they would be larger than allowed.
    unit, overlap = tiling.smallest(strides)
    begun = max(geometry.grid_extent(extent, k, s) * s for k, s in strides.items())
    assert count == 1 or math.ceil(begun / (count - 1) / unit) * unit + overlap > tile


def test_scores_are_those_of_whole_images():
  config, tiled = tiny_config(), tiny_config()
  for each in (config, tiled):
    each.encoder.scales, each.score.strides = (16,), (4,)
  tiled.score.tile = 40
  assert config.score.tile > max(SIZE)
  found, expected = (
    Detector.fit(each, random_params(each), random_images(0, 3), step=0).score(random_images(1, 3))
    for each in (tiled, config)
  )
  assert list(found.maps) == list(expected.maps)
  for name, maps in expected.maps.items():
    np.testing.assert_allclose(found.maps[name], maps, atol=1e-5, rtol=1e-5, err_msg=name)
  for name, distances in expected.distances.items():
    np.testing.assert_allclose(found.distances[name], distances, atol=1e-5, rtol=1e-5)


def test_images_up_to_the_size_of_a_tile_are_encoded_by_the_same_program():
  shape, params = trained()
  images, mean = random_images(0, 1), np.zeros((1, 1, 3), np.float32)
  whole, fitting, tiled = (
    jax.make_jaxpr(embedding.make_encode(shape, PAIRED, tile))(params, mean, images)
    for tile in (0, max(SIZE), max(SIZE) - 1)
  )
  assert str(fitting) == str(whole) != str(tiled)


def test_memory_is_that_of_a_tile():
  shape, params = trained()

  def temporaries(side, tile):
    program = jax.jit(embedding.make_encode(shape, {32: 32, 16: 32}, tile))
    images = jax.ShapeDtypeStruct((4, side, side, 3), np.uint8)
    mean = jax.ShapeDtypeStruct((1, 1, 3), np.float32)
    return memory_of(program.lower(params, mean, images).compile()).temporaries

  # Beside the activations of one tile there is the image in bytes, padded.
  assert temporaries(1024, 256) < temporaries(512, 256) + 4 * 1024**2 < temporaries(512, 0) / 2


@pytest.mark.parametrize('tile', [31, 1, -5])
def test_tiles_without_a_patch_of_each_scale_are_refused(tile):
  message = rf'^config.score.tile={tile}: give at least 32 pixels for patches of 32, 16 at .* 8, 4'
  with pytest.raises(UserError, match=message):
    tiling.check(tile, PAIRED)
  tiling.check(0, PAIRED)
  tiling.check(32, PAIRED)


# A process of its own: the TPU's library keeps the process that loads it.
PLAN = ('plan', 'embed', '--topology', 'v5e:2x2', '--config', 'default')


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler')
def test_large_images_fit_a_small_chip(tmp_path):
  file = tmp_path / 'plan.json'

  def held(*arguments):
    """Bytes on each chip, None if it does not fit, and those that it has."""
    subprocess.run(
      [sys.executable, '-m', 'patch_svdd_jax', *PLAN, '--json', str(file), *arguments],
      env={name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'},
      check=True,
    )
    (row,) = json.loads(file.read_text())['rows']
    return row['memory'] and sum(row['memory'].values()), row['chip_memory']

  size = '--config.data.image_size=(2048,2048)'
  tiled, chip = held(size)
  assert chip == 16 * 2**30
  assert tiled < 1.5e9
  whole, _ = held(size, '--config.score.tile=0')
  assert whole is None or whole > 8 * tiled
