"""The losses of Patch SVDD, and what is watched beside them."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from patch_svdd_jax.system.sharding import PRECISION, Axis


def distance(z: jax.Array, z_neighbour: jax.Array) -> jax.Array:
  """Returns ||z_i - z'_i||_2 along the last axis; its gradient is 0, not NaN, at distance 0."""
  # Not optax.safe_norm, whose gradient differs in the last bit: old runs resume bit for bit.
  squared = jnp.sum((z - z_neighbour) ** 2, axis=-1)
  apart = squared > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def neighbour_loss(z: jax.Array, z_neighbour: jax.Array) -> jax.Array:
  """Returns L_SVDD' = mean_i ||z_i - z'_i||_2  (Yi & Yoon 2020, eq. 4; not squared).

  Args:
    z: f32[B, D], embeddings of patches.
    z_neighbour: f32[B, D], embeddings of patches a few pixels apart.

  Returns:
    f32[]; identical pairs, which do occur, add nothing to it or to its gradient.
  """
  return jnp.mean(distance(z, z_neighbour))


def centre_loss(z: jax.Array, centre: jax.Array) -> jax.Array:
  """Returns L_SVDD = mean_i ||z_i - c||_2, of patch-wise Deep SVDD  (eq. 2).

  Args:
    z: f32[B, D], embeddings of patches.
    centre: f32[D], c.
  """
  return jnp.mean(distance(z, centre[None]))


def contrast_loss(
  z: jax.Array, z_neighbour: jax.Array, temperature: float, axis: Axis
) -> jax.Array:
  """Returns 1/2 mean_i [-log softmax_j(q_i . p_j / t)_i - log softmax_j(p_i . q_j / t)_i].

  q_i = (z_i - m) / (||z_i - m|| + 1e-6), p_i = (z'_i - m) / (||z'_i - m|| + 1e-6), and m is the
  mean of all z and z', which takes part in the gradient. InfoNCE (van den Oord et al. 2018, arXiv
  1807.03748, eq. 4) in both directions; NT-Xent (Chen et al. 2020, arXiv 2002.05709, eq. 1) with
  only the other side's patches for negatives. A patch is to be nearer to its neighbour than to
  those of other pairs: where L_SVDD' makes neighbours alike, this keeps different patches apart, as
  seen from m, whatever the spread.

  The pairs j are those of all devices; each device's loss is the mean over its own i, so that the
  mean over devices is the loss of the batch, and the mean of gradients its gradient.

  Args:
    z: f32[B, D], embeddings of this device's patches.
    z_neighbour: f32[B, D], embeddings of patches a few pixels apart.
    temperature: t.
    axis: the mapped axis of devices.

  Returns:
    f32[]; where all embeddings are equal it is the logarithm of the number of pairs, and its
    gradient is finite.
  """
  here = jnp.stack([z, z_neighbour])
  everywhere = lax.all_gather(here, axis, axis=1, tiled=True)
  mean = everywhere.mean(axis=(0, 1))
  own, other = directions(here, mean), directions(everywhere, mean)[::-1]
  logits = jnp.einsum('sid,sjd->sij', own, other, precision=PRECISION) / temperature
  labels = lax.axis_index(axis) * len(z) + jnp.arange(len(z))
  labels = jnp.broadcast_to(labels[None], logits.shape[:2])
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def directions(z: jax.Array, origin: jax.Array) -> jax.Array:
  """Returns (z - o) / (||z - o|| + 1e-6) of f32[..., D]; its gradient is finite at z = o."""
  origin = jnp.broadcast_to(origin, z.shape)
  return (z - origin) / (distance(z, origin) + 1e-6)[..., None]


def position_loss(logits: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns L_SSL, the mean cross entropy of the 8-way position task  (eq. 5).

  Args:
    logits: f32[B, 8], the classifier's output.
    positions: i32[B] in 0..7.

  Returns:
    f32[]; log 8 = 2.08 by chance.
  """
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, positions))


def position_accuracy(logits: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns the share of pairs whose position is recognised, f32[]; 1/8 by chance."""
  return jnp.mean((jnp.argmax(logits, axis=-1) == positions).astype(jnp.float32))


def covariance(z: jax.Array, axis: Axis) -> jax.Array:
  """Returns the covariance f32[D, D] of embeddings f32[B, D] on each device of the mapped axis."""
  centred = z - lax.pmean(z.mean(axis=0), axis)[None]
  over_all: jax.Array = lax.pmean(jnp.dot(centred.T, centred, precision=PRECISION) / len(z), axis)
  return over_all


def embedding_std(covariance: jax.Array) -> jax.Array:
  """Returns the root mean square over D of the standard deviations of embeddings, f32[].

  It falls towards 0 when the neighbour loss wins and the embeddings collapse to a point.
  """
  return jnp.sqrt(jnp.trace(covariance) / len(covariance))


def effective_rank(covariance: jax.Array) -> jax.Array:
  """Returns the participation ratio (sum of eigenvalues)^2 / sum of their squares, f32[] in [1, D].

  How many principal directions the embeddings spread over (Gao et al. 2017, "A theory of
  multineuronal dimensionality, dynamics and measurement"); it takes no eigenvalues: they are the
  trace and the squared Frobenius norm. 0 where all embeddings are equal.
  """
  total = jnp.trace(covariance)
  shares = covariance / jnp.where(total > 0, total, 1.0)
  return jnp.where(total > 0, 1 / jnp.sum(shares**2), 0.0)
