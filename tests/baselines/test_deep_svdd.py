"""Deep SVDD against its formulas in numpy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax import config_rules
from patch_svdd_jax.baselines import deep_svdd
from patch_svdd_jax.baselines.deep_svdd import DeepSvdd
from patch_svdd_jax.configs import default, folder
from patch_svdd_jax.errors import UserError
from tests.support import small_deep_svdd

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 24, 3), dtype=np.uint8)
SMALL = IMAGES[:, :20, :20]
SQUARED = np.random.default_rng(1).uniform(0, 4, 50).astype(np.float32)


@pytest.fixture(scope='module', autouse=True)
def small():
  with small_deep_svdd.small():
    yield


def tiny_config(**baseline):
  config = default.get_config()
  config.baseline.update({'steps': 5, 'learning_rate': 1e-2, 'nu': 0.4} | baseline)
  return config


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


def pool(x):
  height, width = x.shape[1] // 2, x.shape[2] // 2
  return np.array(
    [
      [
        [image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(width)]
        for i in range(height)
      ]
      for image in x
    ]
  )


def embed(params, images, mean):
  """In float64."""
  x = (images - mean.astype(np.float64)) / 255
  for name in ('conv_0_kernel', 'conv_1_kernel'):
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
    x = pool(leaky(np.einsum('bhwcij,ijco->bhwo', windows, np.asarray(params[name], np.float64))))
  return x.reshape(len(x), -1) @ np.asarray(params['last_kernel'], np.float64)


def test_the_encoder_and_the_centre():
  params, mean = deep_svdd.init_encoder(3), np.full((1, 1, 3), 120, np.float32)
  expected = embed(params, SMALL, mean).mean(0)
  near = np.abs(expected) < 0.1
  expected[near] = np.where(expected[near] < 0, -0.1, 0.1)
  centre = deep_svdd.initial_centre(params, mean, SMALL)
  np.testing.assert_allclose(centre, expected, atol=1e-5)
  squared = deep_svdd.squared_distances(params, jnp.asarray(centre), jnp.asarray(mean), SMALL)
  z = embed(params, SMALL, mean)
  np.testing.assert_allclose(squared, ((z - centre) ** 2).sum(1), rtol=1e-4)


def test_components_near_zero_are_pushed_away():
  pushed = deep_svdd.push_from_zero(np.array([-0.5, -0.05, -1e-9, 0, 0.02, 0.1, 3], np.float32))
  expected = np.array([-0.5, -0.1, -0.1, 0.1, 0.1, 0.1, 3], np.float32)
  np.testing.assert_array_equal(pushed, expected)


def test_no_parameter_is_a_bias():
  # What every image is mapped to where no pixel differs from the mean is 0, whatever the weights.
  params = deep_svdd.init_encoder(0)
  assert set(params) == {'conv_0_kernel', 'conv_1_kernel', 'last_kernel'}
  large = jax.tree.map(lambda leaf: 100 * leaf, params)
  black = jnp.zeros((1, 20, 20, 3))
  np.testing.assert_array_equal(
    deep_svdd.BiasFreeEncoder().apply({'params': large}, black), np.zeros((1, 5))
  )
  # And no activation bounds the output: it is linear along every ray.
  encode = deep_svdd.BiasFreeEncoder().apply
  one, ten = (encode({'params': params}, scale * SMALL / 255) for scale in (1.0, 10.0))
  np.testing.assert_allclose(ten, 10 * one, rtol=1e-4, atol=1e-4)


def test_losses():
  squared, radius = SQUARED.astype(np.float64), 1.2
  np.testing.assert_allclose(deep_svdd.one_class_loss(SQUARED), squared.mean(), rtol=1e-6)
  expected = radius**2 + sum(max(0, d - radius**2) for d in squared) / (0.1 * len(squared))
  found = deep_svdd.soft_boundary_loss(jnp.asarray(SQUARED), jnp.float32(radius), 0.1)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('nu', [0.02, 0.1, 0.5, 1.0])
def test_the_radius_is_a_quantile(nu):
  found = deep_svdd.radius_of(jnp.asarray(SQUARED), nu)
  expected = np.quantile(np.sqrt(SQUARED.astype(np.float64)), 1 - nu)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('objective', ['one_class', 'soft_boundary'])
def test_fit_score_save_load(objective, tmp_path):
  config = tiny_config(objective=objective, steps=31)
  system = DeepSvdd.fit(config, IMAGES)
  small = deep_svdd.resize(IMAGES)
  z = embed(system.params, small, system.mean)
  squared = ((z - system.centre) ** 2).sum(1)
  if objective == 'one_class':
    assert system.radius == 0
    before = deep_svdd.init_encoder(config.seed)
    start = ((embed(before, small, system.mean) - system.centre) ** 2).sum(1)
    assert squared.mean() < 0.5 * start.mean()
  else:
    np.testing.assert_allclose(system.radius, np.quantile(squared**0.5, 0.6), rtol=1e-3)
  system.save(tmp_path)
  for each in (system, DeepSvdd.load(tmp_path)):
    scores = each.score(IMAGES)
    expected = squared - system.radius**2
    np.testing.assert_allclose(scores.images['image'], expected, rtol=1e-3, atol=1e-4)
    assert scores.maps['image'].shape == (6, 20, 24)
    assert (scores.maps['image'] == scores.images['image'][:, None, None]).all()


def test_a_step_moves_the_weights_down_the_gradient_and_the_radius_after_warm_up():
  config = tiny_config(objective='soft_boundary', steps=30)
  params = deep_svdd.init_encoder(0)
  tx = deep_svdd.optimiser(config.baseline.learning_rate)
  state = deep_svdd.DeepSvddState(
    jnp.int32(0), params, tx.init(params), jnp.float32(0), jnp.float32(0)
  )
  before = jax.tree.map(np.array, params)
  mean, centre = np.zeros((1, 1, 3), np.float32), np.full(5, 0.3, np.float32)
  train = deep_svdd.make_train(config.baseline, 0)
  state = train(state, jnp.int32(1), SMALL, centre, mean)
  # With R = 0 the first step's loss is mean d^2 / nu.
  chosen = jax.random.randint(jax.random.fold_in(jax.random.key(0), 0), (4,), 0, 6)
  z = embed(before, SMALL[np.array(chosen)], mean)
  expected = ((z - centre) ** 2).sum(1).mean() / 0.4
  np.testing.assert_allclose(state.loss, expected, rtol=1e-4)
  # Adam's first step is the learning rate, by the gradient's sign.
  for name, leaf in before.items():
    moved = np.abs(np.array(state.params[name]) - leaf)
    assert moved.max() == pytest.approx(1e-2, rel=1e-2)
  # Two of 30 steps are warm-up.
  state = train(state, jnp.int32(1), SMALL, centre, mean)
  assert (int(state.step), float(state.radius)) == (2, 0.0)
  state = train(state, jnp.int32(1), SMALL, centre, mean)
  assert float(state.radius) > 0
  # Any number of steps is one program.
  assert train._cache_size() == 1


def test_a_fit_depends_on_its_seed_alone():
  one, again = (DeepSvdd.fit(tiny_config(), IMAGES) for _ in range(2))
  for name, leaf in one.params.items():
    np.testing.assert_array_equal(leaf, again.params[name])
  other = tiny_config()
  other.seed = 1
  found = DeepSvdd.fit(other, IMAGES).params
  assert any(np.any(found[name] != leaf) for name, leaf in one.params.items())


def test_a_loss_that_is_no_number():
  with pytest.raises(UserError, match=r'lower config\.baseline\.learning_rate \(1e\+38\)'):
    DeepSvdd.fit(tiny_config(learning_rate=1e38), IMAGES)


def test_patch_wise_is_the_packages_own_training():
  config = folder.get_config()
  config.score.update(neighbours=3, coreset=0.5)
  own = deep_svdd.patch_wise(config)
  config_rules.validate(own)
  weights = (own.train.position_weight, own.train.svdd_weight, own.train.contrast)
  assert (own.train.svdd, *weights) == ('centre', 0, 1, 0)
  assert (own.score.compare, own.score.neighbours, own.score.coreset) == ('centre', 1, 1)
  assert (own.score.features, own.score.whiten) == (('embedding',), False)
  assert config.train.svdd == 'neighbour'
