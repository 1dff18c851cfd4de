"""Schedules at chosen steps, and Adam with clipping against Adam in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from patch_svdd_jax import optimizer
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError


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
def test_learning_rate(settings, expected):
  schedule = optimizer.learning_rate(train_config(steps=100, learning_rate=3e-4, **settings))
  for step, share in expected.items():
    np.testing.assert_allclose(schedule(step), 3e-4 * share, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize('warmup_steps', [-1, 101])
def test_warm_up_beyond_the_run_is_refused(warmup_steps):
  with pytest.raises(UserError, match=rf'warmup_steps={warmup_steps} must lie between 0 and'):
    optimizer.learning_rate(train_config(steps=100, warmup_steps=warmup_steps))


def test_unknown_decay_is_refused():
  with pytest.raises(UserError, match=r"config\.train\.decay='linear': give 'none' or 'cosine'"):
    optimizer.learning_rate(train_config(decay='linear'))


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

  def tree(scale):
    shapes = {'kernel': (3, 4), 'bias': (4,)}
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}

  # Norms of about 12, 40 and .04: of the first two a clip at 1 leaves little, of the last all.
  params, gradients = tree(1), [tree(3), tree(10), tree(0.01)]
  optimise = optimizer.from_config(config)

  @jax.jit
  def step(params, state, gradient):
    updates, state = optimise.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  found = jax.tree.map(jnp.array, params)
  state = optimise.init(found)
  for gradient in gradients:
    found, state = step(found, state, gradient)
  expected = adam64(params, gradients, rates, clip_norm)
  unclipped = adam64(params, gradients, rates, 0)
  for name, value in expected.items():
    # Clipping matters by more than the tolerance, where it clips at all.
    assert (np.abs(value - unclipped[name]).max() > 1e-4) == (clip_norm == 1)
    np.testing.assert_allclose(found[name], value, atol=2e-6, rtol=0)
