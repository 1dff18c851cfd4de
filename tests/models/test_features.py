"""Features of whole images against each patch by itself, in numpy float64."""

import functools

import jax
import numpy as np
import pytest

from patch_svdd_jax.models import architecture, embedding, features
from patch_svdd_jax.models.convolution import plain_conv
from patch_svdd_jax.models.encoder import Encoder
from patch_svdd_jax.models.features import Features
from patch_svdd_jax.models.mean_image import subtract_mean
from tests.detection.test_detector import (
  SIZE,
  convolve,
  corners,
  leaky,
  random_images,
  random_params,
  tiny_config,
)

ALL = ('embedding', 'hidden', 'thumbnail')
IMAGES = random_images(3, 2)
MEAN = random_images(4, 1)[0].astype(np.float32)


@functools.cache
def trained(**changes):
  config = tiny_config()
  config.encoder.update({'depth': 5, 'channels': (5, 7, 6, 4), 'width': 1.0} | changes)
  return architecture.from_config(config.encoder), random_params(config)


def encode(shape, params, strides, tile=0, **options):
  return jax.jit(embedding.make_encode(shape, strides, tile, **options))(params, MEAN, IMAGES)


def blocks_of_patches(patches, shape, params):
  """Hidden activations and thumbnails of patches f64[B, K, K, 3], by what each is called."""
  x, layers = patches, params[f'level_{shape.receptive_field}']
  hidden = []
  for index, layer in enumerate(shape.base[:-1]):
    x = leaky(convolve(x, layers[f'conv_{index}'], layer.stride))
    hidden.append(x.mean(axis=(1, 2)))
  batch, side = patches.shape[:2]
  cells = patches.reshape(batch, 4, side // 4, 4, side // 4, 3).mean(axis=(2, 4))
  return {'hidden': np.concatenate(hidden[1:3], axis=1), 'thumbnail': cells.reshape(batch, 48)}


@pytest.mark.parametrize('tile', [0, 40])
@pytest.mark.parametrize(
  ('changes', 'strides', 'hidden'),
  [
    ({}, {32: 8, 16: 4}, 7 + 6),
    ({}, {32: 2, 16: 6}, 7 + 6),
    ({'depth': 3}, {32: 8, 16: 4}, 6),  # one hidden layer of the two
    ({'depth': 4, 'strided_layers': 2}, {32: 4, 16: 8}, 7 + 6),
  ],
)
def test_every_patch_is_as_by_itself(changes, strides, hidden, tile):
  shape, params = trained(**changes)
  found = encode(shape, params, strides, tile, features=Features(('thumbnail', 'hidden')))
  normalised = (IMAGES - MEAN.astype(np.float64)) / 255
  for k, stride in strides.items():
    places = corners(SIZE, k, stride)
    patches = np.concatenate([normalised[:, i : i + k, j : j + k] for i, j in places])
    blocks = blocks_of_patches(patches, shape, params)
    expected = np.concatenate([blocks['thumbnail'], blocks['hidden']], axis=1)
    assert expected.shape[1] == 48 + hidden
    expected = expected.reshape(len(places), 2, -1).swapaxes(0, 1)
    np.testing.assert_allclose(found[k].reshape(expected.shape), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize('names', [ALL, ALL[::-1], ALL[:2], ('thumbnail', 'embedding')])
def test_blocks_lie_behind_each_other(names):
  shape, params = trained()
  strides = {32: 8, 16: 4}
  together = encode(shape, params, strides, features=Features(names))
  apart = [encode(shape, params, strides, features=Features((name,))) for name in names]
  widths = {'embedding': [8], 'hidden': [7, 6], 'thumbnail': [48]}
  assert Features(names).widths(shape) == [width for name in names for width in widths[name]]
  for k, grid in together.items():
    assert grid.shape[-1] == Features(names).dim(shape)
    expected = np.concatenate([each[k] for each in apart], axis=-1)
    np.testing.assert_allclose(grid, expected, atol=1e-6, rtol=0)


def test_a_projection_is_of_each_scale():
  shape, params = trained()
  rng = np.random.default_rng(0)
  strides = {32: 8, 16: 4}
  chosen = Features(('hidden',), projected=True, components=5)
  fitted = {
    f'k{k}': {
      'mean': rng.normal(size=13).astype(np.float32),
      'matrix': rng.normal(size=(13, 5)).astype(np.float32),
    }
    for k in strides
  }
  raw = encode(shape, params, strides, features=chosen.raw)
  found = encode(shape, params | {'projection': fitted}, strides, features=chosen)
  for k, grid in found.items():
    mean, matrix = fitted[f'k{k}'].values()
    expected = (np.asarray(raw[k], np.float64) - mean) @ matrix
    assert grid.shape[-1] == chosen.dim(shape)
    np.testing.assert_allclose(grid, expected, atol=1e-5, rtol=0)


def program(strides, names):
  shape, params = trained()
  encode = embedding.make_encode(shape, strides, convolve=plain_conv, features=Features(names))
  return str(jax.make_jaxpr(encode)(params, MEAN, IMAGES))


def test_the_embedding_alone_takes_the_encoder_s_own_program():
  shape, params = trained()
  encoder = Encoder(shape, convolve=plain_conv)

  def plainly(params, mean, images):
    return encoder.apply({'params': params}, subtract_mean(images, mean), {32: 8, 16: 4})

  expected = str(jax.make_jaxpr(plainly)(params, MEAN, IMAGES))
  assert program({32: 8, 16: 4}, ('embedding',)) == expected


@pytest.mark.parametrize(
  ('names', 'convolutions'),
  [(('thumbnail',), 0), (('hidden', 'thumbnail'), 3), (('embedding',), 7), (ALL, 7)],
)
def test_no_more_is_computed_than_needed(names, convolutions):
  assert program({32: 8, 16: 4}, names).count('conv_general_dilated[') == convolutions


def test_what_a_config_asks_for():
  config = tiny_config().score
  assert features.from_config(config) == features.EMBEDDING
  config.whiten = True
  assert features.from_config(config) == Features(('embedding',), True, 64)
  config.whiten, config.features = False, ('hidden', 'thumbnail')
  assert features.from_config(config) == Features(('hidden', 'thumbnail'), True, 0)
  assert features.from_config(config).raw == Features(('hidden', 'thumbnail'))
