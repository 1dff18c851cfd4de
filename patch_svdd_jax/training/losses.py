"""The losses of Patch SVDD, and what is watched beside them."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from patch_svdd_jax.system.sharding import PRECISION


def distance(z: jax.Array, z_neighbour: jax.Array) -> jax.Array:
  """||z_i - z'_i||_2 along the last axis; its gradient is zero, not NaN, where both are equal."""
  # Not optax.safe_norm, whose gradient differs in the last bit: old runs resume bit for bit.
  squared = jnp.sum((z - z_neighbour) ** 2, axis=-1)
  apart = squared > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def neighbour_loss(z: jax.Array, z_neighbour: jax.Array) -> jax.Array:
  """L_SVDD' = mean_i ||z_i - z'_i||_2  (Yi & Yoon 2020, eq. 4; un-squared, as the authors' code).

  Args:
    z: f32[B, D], embeddings of patches.
    z_neighbour: f32[B, D], embeddings of patches a few pixels apart.

  Returns:
    f32[]; identical pairs, which do occur, add nothing to it or to its gradient.
  """
  return jnp.mean(distance(z, z_neighbour))


def centre_loss(z: jax.Array, centre: jax.Array) -> jax.Array:
  """L_SVDD = mean_i ||z_i - c||_2, of patch-wise Deep SVDD  (eq. 2).

  Args:
    z: f32[B, D], embeddings of patches.
    centre: f32[D], c.
  """
  return jnp.mean(distance(z, centre[None]))


def position_loss(logits: jax.Array, positions: jax.Array) -> jax.Array:
  """L_SSL = mean cross entropy of the 8-way position task  (eq. 5).

  Args:
    logits: f32[B, 8], the classifier's output.
    positions: i32[B] in 0..7.

  Returns:
    f32[]; log 8 = 2.08 by chance.
  """
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, positions))


def position_accuracy(logits: jax.Array, positions: jax.Array) -> jax.Array:
  """The share of pairs whose position is recognised, f32[]; 1/8 by chance."""
  return jnp.mean((jnp.argmax(logits, axis=-1) == positions).astype(jnp.float32))


def covariance(z: jax.Array, axis: str) -> jax.Array:
  """The covariance f32[D, D] of embeddings f32[B, D] on each device of the mapped axis."""
  centred = z - lax.pmean(z.mean(axis=0), axis)[None]
  over_all: jax.Array = lax.pmean(jnp.dot(centred.T, centred, precision=PRECISION) / len(z), axis)
  return over_all


def embedding_std(covariance: jax.Array) -> jax.Array:
  """The standard deviation of embeddings of this covariance, root mean square over D, f32[].

  It falls towards 0 when the neighbour loss wins and the embeddings collapse to a point.
  """
  return jnp.sqrt(jnp.trace(covariance) / len(covariance))


def effective_rank(covariance: jax.Array) -> jax.Array:
  """The participation ratio (sum of eigenvalues)^2 / sum of their squares, f32[] in [1, D].

  How many principal directions the embeddings spread over (Gao et al. 2017, "A theory of
  multineuronal dimensionality, dynamics and measurement"); it takes no eigenvalues: they are the
  trace and the squared Frobenius norm. 0 where all embeddings are equal.
  """
  total = jnp.trace(covariance)
  shares = covariance / jnp.where(total > 0, total, 1.0)
  return jnp.where(total > 0, 1 / jnp.sum(shares**2), 0.0)
