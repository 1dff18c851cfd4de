"""Schedules, scaling rules, Adam with clipping against float64, the others against optax's own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.training import optimizer


def train_config(**settings):
  config = default.get_config().train
  config.update(settings)
  return config


def cosine(progress):
  return (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize(
  ('settings', 'expected'),
  [
    ({}, {0: 1, 1: 1, 57: 1, 100: 1}),
    ({'warmup_steps': 10}, {0: 0, 1: 0.1, 5: 0.5, 9: 0.9, 10: 1, 11: 1, 100: 1}),
    ({'decay': 'cosine'}, {0: 1, 25: cosine(0.25), 50: 0.5, 99: cosine(0.99), 100: 0, 101: 0}),
    (
      {'decay': 'cosine', 'warmup_steps': 20},
      {0: 0, 10: 0.5, 20: 1, 40: cosine(0.25), 60: 0.5, 99: cosine(79 / 80), 100: 0},
    ),
    ({'warmup_steps': 100, 'decay': 'cosine'}, {0: 0, 50: 0.5, 99: 0.99}),
  ],
  ids=['constant', 'warm-up', 'cosine', 'both', 'warm-up only'],
)
def test_schedules_have_a_peak_of_one(settings, expected):
  schedule = optimizer.schedule(train_config(steps=100, learning_rate=3e-4, **settings))
  for step, share in expected.items():
    np.testing.assert_allclose(schedule(step), share, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('scaling', 'batch', 'expected'),
  [
    ('none', 4096, 1e-4),
    ('sqrt', 4096, 8e-4),
    ('linear', 4096, 64e-4),
    ('sqrt', 64, 1e-4),
    ('linear', 64, 1e-4),
    ('sqrt', 16, 0.5e-4),
    ('linear', 16, 0.25e-4),
  ],
)
def test_the_learning_rate_grows_with_the_batch(scaling, batch, expected):
  config = train_config(learning_rate=1e-4, learning_rate_scaling=scaling, batch_size=batch)
  assert optimizer.peak_learning_rate(config) == pytest.approx(expected, rel=1e-12)


def draw(rng, scale):
  shapes = {'kernel': (3, 4), 'bias': (4,)}
  return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def descend(optimise, params, gradients, learning_rate=1.0):
  """The parameters after a step for each gradient."""

  @jax.jit
  def step(params, state, gradient):
    updates, state = optimise.update(gradient, state, params)
    updates = jax.tree.map(lambda update: learning_rate * update, updates)
    return optax.apply_updates(params, updates), state

  found = jax.tree.map(jnp.array, params)
  state = optimise.init(found)
  for gradient in gradients:
    found, state = step(found, state, gradient)
  return found


@pytest.mark.parametrize(('name', 'peak'), [('adam', 0.03), ('lamb', 0.03), ('lars', 3.0)])
def test_updates_are_linear_in_the_learning_rate(name, peak):
  """A peak of 1 and the factor behind it are optax's optimiser with the whole schedule."""
  config = train_config(optimizer=name, steps=6, warmup_steps=2, decay='cosine')
  rates = [0, 0.5, *(cosine(step / 4) for step in range(4))]
  rng = np.random.default_rng(0)
  params, gradients = draw(rng, 1), [draw(rng, 1) for _ in rates]
  plain = getattr(optax, name)(lambda step: peak * jnp.array(rates)[step])
  expected = descend(plain, params, gradients)
  found = descend(optimizer.from_config(config), params, gradients, peak)
  for leaf, value in expected.items():
    assert np.abs(value - params[leaf]).max() > 1e-3
    np.testing.assert_allclose(found[leaf], value, rtol=1e-5, atol=1e-6)


def adam64(params, gradients, rates, clip_norm):
  """Kingma & Ba 2015 in float64, each gradient first scaled down to the global norm `clip_norm`."""
  params = {name: value.astype(np.float64) for name, value in params.items()}
  mean, square = ({name: np.zeros_like(value) for name, value in params.items()} for _ in range(2))
  for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
    norm = math.sqrt(
      sum(float((value.astype(np.float64) ** 2).sum()) for value in gradient.values())
    )
    scale = min(1, clip_norm / norm) if clip_norm else 1
    for name, value in gradient.items():
      value = scale * value.astype(np.float64)
      mean[name] = 0.9 * mean[name] + 0.1 * value
      square[name] = 0.999 * square[name] + 0.001 * value**2
      corrected = mean[name] / (1 - 0.9**step), square[name] / (1 - 0.999**step)
      params[name] -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
  return params


@pytest.mark.parametrize('clip_norm', [0.0, 1.0, 1e3])
@pytest.mark.parametrize('warmup_steps', [0, 2])
def test_adam_after_clipping(clip_norm, warmup_steps):
  config = train_config(
    steps=4, learning_rate=0.01, decay='cosine', clip_norm=clip_norm, warmup_steps=warmup_steps
  )
  rates = [0.01 * cosine(step / 4) for step in range(3)] if not warmup_steps else [0, 0.005, 0.01]
  rng = np.random.default_rng(0)
  # Norms of about 12, 40 and .04: of the first two a clip at 1 leaves little, of the last all.
  params, gradients = draw(rng, 1), [draw(rng, 3), draw(rng, 10), draw(rng, 0.01)]
  found = descend(optimizer.from_config(config), params, gradients, learning_rate=0.01)
  expected = adam64(params, gradients, rates, clip_norm)
  unclipped = adam64(params, gradients, rates, 0)
  for name, value in expected.items():
    # Clipping matters by more than the tolerance, where it clips at all.
    assert (np.abs(value - unclipped[name]).max() > 1e-4) == (clip_norm == 1)
    np.testing.assert_allclose(found[name], value, atol=2e-6, rtol=0)
