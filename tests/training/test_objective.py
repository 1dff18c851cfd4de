"""The loss and its metrics in float64, and what computes the encoder: types, rematerialisation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.training import objective, train_state, windows
from tests.detection.test_detector import random_params
from tests.support.runs import COUNT, IMAGES, MEAN, assert_close, tiny_config

BATCH, WEIGHT = 8, 0.3


def random_state_params(config):
  """Of an encoder and classifiers whose outputs differ from patch to patch."""
  shapes = jax.eval_shape(lambda: train_state.init_state(config)).params
  rng = np.random.default_rng(0)
  classifiers = jax.tree.map(
    lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes['classifiers']
  )
  return {'encoder': random_params(config), 'classifiers': classifiers}


def loss_config(pairs, **train):
  return tiny_config(pairs=pairs, batch_size=BATCH, crops=2, **train)


CENTRES = dict(zip(('k16', 'k8'), np.random.default_rng(1).normal(0, 0.3, (2, 8)), strict=True))


@functools.cache
def evaluate(pairs, **train):
  """Returns a function of the parameters: pairs' embeddings, and the loss of the same pairs."""
  config = loss_config(pairs, **train)
  hyperparams = train_state.hyperparams(config, CENTRES)._replace(svdd_weight=jnp.float32(WEIGHT))
  keys = jax.random.split(jax.random.key(0), objective.examples(config))
  embed = objective.PAIRS[pairs](config, COUNT, windows.crop)
  loss = objective.make_loss(config, COUNT)

  @jax.jit
  def both(params, *given):
    return embed(params['encoder'], *given), loss(params, *given, hyperparams)

  return lambda params: jax.device_get(both(params, keys, IMAGES, MEAN))


def leaky64(x):
  return np.where(x > 0, x, 0.1 * x)


def classify64(params, first, second):
  """The odds of the eight positions."""
  params = {name: value.astype(np.float64) for name, value in params.items()}
  x = first.astype(np.float64) - second
  for name in ('dense_0', 'dense_1'):
    x = leaky64(x @ params[f'{name}_kernel'] + params[f'{name}_bias'])
  kernel = params['last_kernel'] / np.linalg.norm(params['last_kernel'], axis=1, keepdims=True)
  odds = np.exp(x @ kernel + params['last_bias'])
  return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('pairs', ['patches', 'crops'])
def test_loss_and_metrics_agree_with_float64(pairs):
  params = random_state_params(loss_config(pairs))
  embeddings, (value, (metrics, anchors)) = evaluate(pairs)(params)
  expected, total = {}, 0.0
  for k, found in embeddings.items():
    assert found.first.shape == (BATCH, 8)
    assert found.positions.shape == (BATCH,)
    odds = classify64(params['classifiers'][f'k{k}'], found.first, found.second)
    position = -np.log(odds[np.arange(BATCH), found.positions]).mean()
    apart = found.anchor.astype(np.float64) - found.neighbour
    neighbour = np.sqrt((apart**2).sum(axis=1)).mean()
    expected |= {
      f'position_loss/k{k}': position,
      f'position_accuracy/k{k}': (odds.argmax(axis=1) == found.positions).mean(),
      f'neighbour_loss/k{k}': neighbour,
    }
    total += position + WEIGHT * neighbour
    assert neighbour > 0.01
    np.testing.assert_array_equal(anchors[f'k{k}'], found.anchor)
  assert value == metrics.pop('loss') == pytest.approx(total, rel=1e-5)
  assert metrics.keys() == expected.keys()
  for name, found in metrics.items():
    assert found == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize('position_weight', [0.0, 0.5])
def test_losses_of_ablations_agree_with_float64(position_weight):
  params = random_state_params(loss_config('patches'))
  evaluated = evaluate('patches', svdd='centre', position_weight=position_weight)
  embeddings, (value, (metrics, _)) = evaluated(params)
  total = 0.0
  for k, found in embeddings.items():
    apart = found.anchor.astype(np.float64) - CENTRES[f'k{k}']
    to_centre = np.sqrt((apart**2).sum(axis=1)).mean()
    assert metrics[f'centre_loss/k{k}'] == pytest.approx(to_centre, rel=1e-5)
    total += position_weight * metrics[f'position_loss/k{k}'] + WEIGHT * to_centre
  assert value == pytest.approx(total, rel=1e-5)


def test_an_untrained_network_guesses():
  untrained = train_state.init_state(loss_config('patches')).params
  _, (_, (metrics, _)) = evaluate('patches')(untrained)
  for scale in ('k16', 'k8'):
    assert metrics[f'position_loss/{scale}'] == pytest.approx(math.log(8), abs=0.5)
    # Embeddings lie in a cube of side 2.
    assert 0 < metrics[f'neighbour_loss/{scale}'] < 2 * math.sqrt(8)


# How the encoder computes.


def encoder_config(**train):
  config = tiny_config(**train)
  # More layers, of whose activations rematerialisation keeps some.
  config.encoder.update(receptive_field=16, scales=(32, 16), depth=5)
  return config


@functools.cache
def inputs():
  rng = np.random.default_rng(0)
  patches = rng.normal(0, 0.5, (6, 32, 32, 3)).astype(np.float32)
  crops = rng.normal(0, 0.5, (2, 40, 43, 3)).astype(np.float32)
  return random_params(encoder_config()), patches, crops


def encode_both_ways(config):
  """Embeddings of patches and of dense maps."""
  encode = objective.encode_with(config)

  def embed(params, patches, crops):
    return {'patches': encode(params, patches), 'dense': encode(params, crops, {32: 2, 16: 2})}

  return embed


@functools.cache
def encoded(**train):
  """Those embeddings, and the gradient of a sum that differs from element to element."""
  embed = encode_both_ways(encoder_config(**train))

  def score(params, *given):
    found = embed(params, *given)
    return sum(jnp.sum(jnp.sin(leaf) ** 2) for leaf in jax.tree.leaves(found)), found

  gradient, found = jax.jit(jax.grad(score, has_aux=True))(*inputs())
  return jax.device_get((found, gradient))


def test_rematerialisation_changes_no_gradient():
  found, gradient = encoded(rematerialise=True)
  expected, expected_gradient = encoded()
  assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradient))
  assert_close(found, expected, atol=1e-6)
  assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_rematerialisation_keeps_fewer_activations():
  def kept(**train):
    embed = encode_both_ways(encoder_config(**train))
    pullback = jax.eval_shape(lambda *given: jax.vjp(embed, *given)[1], *inputs())
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))

  assert kept(rematerialise=True) < 0.6 * kept()


def test_bfloat16_computes_nearly_the_same_from_float32_to_float32():
  found, gradient = encoded(compute='bfloat16')
  expected, expected_gradient = encoded()
  for leaf in jax.tree.leaves((found, gradient)):
    assert leaf.dtype == np.float32
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    # Eight bits of the significand: not the same numbers, and off by a few hundredths.
    assert 1e-4 < np.abs(one - other).max() < 0.1
    assert np.abs(one - other).mean() < 0.02
  for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
    assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(other)


# What a step draws, and what is refused.


def test_what_a_step_draws_has_a_key_each():
  assert objective.examples(tiny_config(batch_size=BATCH)) == BATCH
  assert objective.examples(tiny_config(pairs='crops', batch_size=BATCH, crops=2)) == 2
