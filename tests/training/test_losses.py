"""The losses against float64, and their gradients where pairs are identical."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.training import losses
from tests.support.contrast import contrast64


def embeddings(count=6, dim=5):
  """Pairs of which the second and the fifth are identical."""
  z, z_neighbour = np.random.default_rng(0).normal(size=(2, count, dim)).astype(np.float32)
  z_neighbour[[1, 4]] = z[[1, 4]]
  return z, z_neighbour


def lengths(z, z_neighbour):
  return np.array([math.dist(a, b) for a, b in zip(z.tolist(), z_neighbour.tolist(), strict=True)])


def test_neighbour_loss_is_the_mean_distance_not_squared():
  z, z_neighbour = embeddings()
  np.testing.assert_allclose(losses.distance(z, z_neighbour), lengths(z, z_neighbour), rtol=1e-6)
  expected = lengths(z, z_neighbour).mean()
  np.testing.assert_allclose(losses.neighbour_loss(z, z_neighbour), expected, rtol=1e-6)


def test_identical_pairs_have_no_gradient():
  z, z_neighbour = embeddings()
  by_z, by_z_neighbour = jax.jit(jax.grad(losses.neighbour_loss, argnums=(0, 1)))(z, z_neighbour)
  # d/dz of ||z - z'|| is the unit vector from z' to z; of the mean of six, a sixth of it.
  distances = lengths(z, z_neighbour)[:, None]
  expected = (z.astype(np.float64) - z_neighbour) / np.where(distances, distances, 1) / 6
  np.testing.assert_allclose(by_z, expected, rtol=1e-5)
  np.testing.assert_allclose(by_z_neighbour, -expected, rtol=1e-5)
  assert not by_z[1].any()
  assert not by_z[4].any()


def test_a_batch_of_identical_pairs_costs_nothing():
  z, _ = embeddings()
  value, gradient = jax.value_and_grad(losses.neighbour_loss)(z, z)
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros_like(z))


def test_neighbour_loss_of_a_collapsed_encoder_keeps_its_digits():
  z, z_neighbour = embeddings()
  found = losses.neighbour_loss(1e-6 * z, 1e-6 * z_neighbour)
  np.testing.assert_allclose(found, 1e-6 * lengths(z, z_neighbour).mean(), rtol=1e-5)


def test_centre_loss_is_the_mean_distance_to_one_point():
  z, centres = embeddings()
  centre = centres[0]
  expected = lengths(z, np.broadcast_to(centre, z.shape)).mean()
  np.testing.assert_allclose(losses.centre_loss(z, centre), expected, rtol=1e-6)


@functools.partial(jax.jit, static_argnames=('temperature', 'devices'))
def contrast(z, z_neighbour, temperature, devices):
  """The mean over so many devices, which have equal parts of the pairs, and its gradients."""

  def over_devices(*pairs):
    parts = (each.reshape(devices, -1, each.shape[-1]) for each in pairs)
    loss = jax.vmap(
      lambda *part: losses.contrast_loss(*part, temperature, 'devices'), axis_name='devices'
    )
    return loss(*parts).mean()

  return jax.value_and_grad(over_devices, argnums=(0, 1))(z, z_neighbour)


@pytest.mark.parametrize('devices', [1, 2, 4])
@pytest.mark.parametrize(('scale', 'temperature'), [(1.0, 0.2), (1.0, 0.05), (4e-4, 1.0)])
def test_contrast_loss_agrees_with_float64_on_any_devices(devices, scale, temperature):
  rng = np.random.default_rng(0)
  z, apart = rng.normal(size=(2, 8, 5))
  pairs = np.float32(0.95 + scale * np.stack([z, z + 0.5 * apart]))
  loss, gradients = contrast(*pairs, temperature, devices)
  rtol = 1e-5 if scale == 1 else 2e-3
  assert 0.1 < loss < 3
  assert loss == pytest.approx(contrast64(*pairs, temperature), rel=rtol)
  # Central differences, of coordinates of anchors and neighbours.
  for side, row, column in ((0, 0, 0), (0, 7, 3), (1, 2, 4), (1, 5, 1)):
    step = np.zeros(pairs.shape)
    step[side, row, column] = 1e-5 * scale
    above, below = (contrast64(*(pairs + sign * step), temperature) for sign in (1, -1))
    slope = (above - below) / (2e-5 * scale)
    assert gradients[side][row, column] == pytest.approx(slope, rel=10 * rtol, abs=1e-4 / scale)


def test_contrast_loss_of_certain_and_of_no_answers():
  corners = 3 * np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)
  # Of each other pair the neighbour is at right angles, or opposite.
  expected = math.log(1 + 6 * math.exp(-1 / 0.2) + math.exp(-2 / 0.2))
  assert contrast(corners, corners, 0.2, 2)[0] == pytest.approx(expected, rel=1e-4)
  for level in (0.75, 1 / 3):
    point = np.full((8, 4), level, np.float32)
    loss, gradients = contrast(point, point, 0.2, 2)
    assert loss == pytest.approx(math.log(8), rel=1e-6)
    assert np.isfinite(gradients).all()


def test_contrast_loss_at_the_mean_has_a_finite_gradient():
  z = np.float32([[1, 0], [-1, 0], [0, 0], [0, 0]])
  loss, gradients = contrast(z, z, 0.2, 1)
  assert loss == pytest.approx(contrast64(z, z, 0.2), rel=1e-5)
  assert np.isfinite(gradients).all()


def test_position_loss_is_the_mean_cross_entropy():
  logits = 3 * np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
  positions = np.arange(9) % 8
  expected = np.mean(
    [
      math.log(sum(math.exp(x - row[position]) for x in row))
      for row, position in zip(logits.tolist(), positions, strict=True)
    ]
  )
  np.testing.assert_allclose(losses.position_loss(logits, positions), expected, rtol=1e-5)


@pytest.mark.parametrize('level', [0.0, 10.0, -10.0])
def test_position_loss_by_chance_is_log_8(level):
  logits = jnp.full((16, 8), level)
  found = losses.position_loss(logits, jnp.arange(16) % 8)
  assert found == pytest.approx(math.log(8), rel=1e-6)


def test_position_loss_of_certain_answers():
  logits = 1e4 * jnp.eye(8)
  assert losses.position_loss(logits, jnp.arange(8)) == 0
  assert losses.position_loss(logits, (jnp.arange(8) + 1) % 8) == pytest.approx(1e4)


def test_position_accuracy_counts_the_right_answers():
  logits = jnp.eye(8)[jnp.array([0, 1, 2, 3, 4])]
  assert losses.position_accuracy(logits, jnp.array([0, 1, 2, 4, 3])) == pytest.approx(0.6)


# The covariance of embeddings that lie on four devices, and what is read off it.


@jax.jit
def measure(z):
  """The covariance of f32[16, 4], a quarter of it on each of four devices; spread and rank."""

  def on_device(part):
    covariance = losses.covariance(part, 'row')
    return covariance, losses.embedding_std(covariance), losses.effective_rank(covariance)

  return jax.vmap(on_device, axis_name='row')(z.reshape(4, 4, 4))


def covariance_spread_rank(z):
  everywhere = measure(jnp.asarray(z, jnp.float32))
  for value in everywhere:
    np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape))
  return [np.asarray(value[0]) for value in everywhere]


@pytest.mark.parametrize(('scale', 'rtol'), [(1.0, 1e-5), (4e-4, 1e-3)], ids=['wide', 'collapsed'])
def test_spread_and_rank_agree_with_float64_eigenvalues(scale, rtol):
  # Collapsed as the authors' own embeddings of screw: a spread of 4e-4 around .95.
  rng = np.random.default_rng(0)
  z = 0.95 + scale * rng.normal(size=(16, 4)) @ np.diag([1, 0.7, 0.3, 0.1])
  z = z.astype(np.float32)
  expected = np.cov(z.astype(np.float64), rowvar=False, bias=True)
  found, spread, rank = covariance_spread_rank(z)
  np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())
  eigenvalues = np.linalg.eigvalsh(expected)
  np.testing.assert_allclose(spread, math.sqrt(eigenvalues.mean()), rtol=rtol)
  expected_rank = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
  assert 1.5 < expected_rank < 3
  np.testing.assert_allclose(rank, expected_rank, rtol=rtol)


def test_a_point_has_neither_spread_nor_rank():
  _, spread, rank = covariance_spread_rank(np.full((16, 4), 0.75))
  assert spread == 0
  assert rank == 0


@pytest.mark.parametrize('scale', [1.0, 1e-6, 1e6])
def test_a_line_has_the_rank_one_and_a_ball_that_of_its_space(scale):
  line = np.linspace(-1, 1, 16)[:, None] * [1, 2, -3, 0]
  assert covariance_spread_rank(scale * line)[2] == pytest.approx(1, rel=1e-5)
  corners = np.concatenate(2 * [np.eye(4), -np.eye(4)])
  _, spread, rank = covariance_spread_rank(scale * corners)
  assert spread == pytest.approx(scale / 2, rel=1e-5)
  assert rank == pytest.approx(4, rel=1e-5)
