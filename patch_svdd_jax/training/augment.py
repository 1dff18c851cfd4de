"""What training windows go through: other light, the mean image taken off, and noise."""

import jax
import jax.numpy as jnp
import ml_collections
from jax import lax

from patch_svdd_jax.models.mean_image import subtract_mean


def is_lit(augment: ml_collections.ConfigDict) -> bool:
  """Returns whether windows are shown under other light."""
  return bool(augment.brightness or augment.gain)


def random_lighting(
  pixels: jax.Array, normals: jax.Array, augment: ml_collections.ConfigDict
) -> jax.Array:
  """Relights pixels f32[S, S, 3] in grey levels: x * exp(gain n) + 255 brightness n'.

  Args:
    pixels: f32[S, S, 3].
    normals: f32[2], n and n'.
    augment: `config.train.augment`.
  """
  lit: jax.Array = (
    pixels * jnp.exp(augment.gain * normals[0]) + 255 * augment.brightness * normals[1]
  )
  return lit


def augment_and_normalise(
  pixels: jax.Array,
  corners: jax.Array,
  mean: jax.Array,
  lighting: jax.Array,
  augment: ml_collections.ConfigDict,
) -> jax.Array:
  """Returns windows lit and normalised, f32[B, S, S, 3].

  Args:
    pixels: u8[B, S, S, 3].
    corners: i32[B, 2]: the mean image is cropped where the window is.
    mean: f32[H, W, 3] or f32[1, 1, 3] in grey levels.
    lighting: f32[B, 2], standard normal numbers, used where `augment` varies the light.
    augment: `config.train.augment`.
  """
  side = pixels.shape[1]
  lit = pixels.astype(jnp.float32)
  if is_lit(augment):
    lit = jax.vmap(random_lighting, (0, 0, None))(lit, lighting, augment)
  if mean.shape[:2] == (1, 1):
    return subtract_mean(lit, mean)

  def one(window: jax.Array, corner: jax.Array) -> jax.Array:
    return subtract_mean(window, lax.dynamic_slice(mean, (*corner, 0), (side, side, 3)))

  return jax.vmap(one)(lit, corners)


def add_noise(
  window: jax.Array, shift: jax.Array, noise: jax.Array, augment: ml_collections.ConfigDict
) -> jax.Array:
  """Returns a normalised window f32[S, S, 3] plus a shift of each channel and noise at each pixel.

  Args:
    window: f32[S, S, 3].
    shift: f32[3], standard normal numbers.
    noise: f32[S * S * 3], likewise.
    augment: `config.train.augment`.
  """
  moved = window + augment.rgb_shift * shift[None, None]
  noisy: jax.Array = moved + augment.pixel_noise * noise.reshape(window.shape)
  return noisy
