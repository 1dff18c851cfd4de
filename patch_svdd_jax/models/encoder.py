"""Encoders and the position classifier, as Flax modules.

Every convolution is VALID, so a patch is nothing but an image of the receptive field's size: the
same parameters applied to a whole image give the embeddings of all its patches, overlapping work
shared.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, geometry
from patch_svdd_jax.models.architecture import Architecture, Convolution
from patch_svdd_jax.models.convolution import valid_conv
from patch_svdd_jax.system.sharding import PRECISION

LEAK = 0.1
POSITIONS = 8
CHANCE = 1 / POSITIONS  # of recognising one by guessing
# What rematerialisation keeps of the activations: those of every other layer.
KEPT = 'kept activation'
Params = Mapping[str, Any]
# VALID convolutions by stride and dilation, as `valid_conv`.
Convolve = Callable[[jax.Array, jax.Array, int, int], jax.Array]


class Initializers(NamedTuple):
  """How a layer's parameters are drawn."""

  kernel: nn.initializers.Initializer
  bias: nn.initializers.Initializer


def uniform_initializer(fan_in: int) -> nn.initializers.Initializer:
  """Draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default and so the authors'."""
  bound = fan_in**-0.5
  return drawn_flat(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound))


def drawn_flat(initializer: nn.initializers.Initializer) -> nn.initializers.Initializer:
  """Draws the numbers of four dimensions from one, which XLA compiles four times faster."""

  def initialize(
    key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
  ) -> jax.Array:
    return jnp.reshape(initializer(key, (math.prod(shape),), dtype), shape)

  return initialize


def uniform_initializers(fan_in: int) -> Initializers:
  """Draws kernel and biases alike, by `uniform_initializer`."""
  initialize = uniform_initializer(fan_in)
  return Initializers(initialize, initialize)


def he_initializers(fan_in: int) -> Initializers:
  """Draws a kernel from N(0, 2 / ((1 + LEAK^2) fan_in)); biases are zero.

  Activations then keep their size from layer to layer through leaky ReLUs (He et al. 2015, arXiv
  1502.01852, eq. 15), where PyTorch's default makes them about 2.4 times smaller at each.
  """
  deviation = math.sqrt(2 / ((1 + LEAK**2) * fan_in))
  return Initializers(drawn_flat(nn.initializers.normal(deviation)), nn.initializers.zeros)


# Those of a convolution, by `config.encoder.init`.
INITIALIZERS: dict[str, Callable[[int], Initializers]] = {
  'uniform': uniform_initializers,
  'he': he_initializers,
}


def leaky_relu(x: jax.Array) -> jax.Array:
  """Returns the activation between all layers."""
  return nn.leaky_relu(x, LEAK)


def at_least_float32(x: jax.Array) -> jax.Array:
  """Converts bfloat16 to float32; other types stay as they are."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class ValidConv(nn.Module):
  """A VALID convolution, whose stride and dilation are chosen at each call.

  `dtype` is that of the computation; None is that of the parameters. `initializers` follow from the
  fan-in.
  """

  kernel: int
  features: int
  dtype: jax.typing.DTypeLike | None = None
  convolve: Convolve = valid_conv
  initializers: Callable[[int], Initializers] = uniform_initializers

  @nn.compact
  def __call__(self, x: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves f32[B, H, W, C] to f32[B, H', W', features]."""
    initializers = self.initializers(self.kernel**2 * x.shape[-1])
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', initializers.kernel, shape)
    bias = self.param('bias', initializers.bias, (self.features,))
    if self.dtype:
      x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
    return self.convolve(x, kernel, stride, dilation) + bias[None, None, None]


class BaseLevel(nn.Module):
  """The lowest level: K x K pixels to one embedding, leaky ReLU between and tanh last."""

  layers: tuple[Convolution, ...]
  dtype: jax.typing.DTypeLike | None = None
  convolve: Convolve = valid_conv
  initializers: Callable[[int], Initializers] = uniform_initializers

  def setup(self) -> None:
    self.conv = [
      ValidConv(layer.kernel, layer.features, self.dtype, self.convolve, self.initializers)
      for layer in self.layers
    ]

  def __call__(self, x: jax.Array, thinning: int = 1) -> jax.Array:
    """Embeds f32[B, H, W, 3]; of the outputs every `thinning`-th is computed along each axis."""
    return self.last(self.activations(x, len(self.layers) - 1)[-1], thinning)

  def activations(self, x: jax.Array, count: int) -> list[jax.Array]:
    """Returns f32[B, H, W, 3] itself and what the first `count` layers make of it, but the last."""
    found = [x]
    for index, (conv, layer) in enumerate(zip(self.conv[:count], self.layers, strict=False)):
      x = leaky_relu(conv(x, layer.stride))
      if index % 2:
        x = checkpoint_name(x, KEPT)
      found.append(x)
    return found

  def last(self, x: jax.Array, thinning: int) -> jax.Array:
    """Returns the embeddings by the activations of the last hidden layer."""
    return jnp.tanh(self.conv[-1](x, self.layers[-1].stride * thinning))


class MergeLevel(nn.Module):
  """A level above: the embeddings of a patch's four quadrants to the patch's embedding."""

  merge_features: int
  embed_dim: int
  dtype: jax.typing.DTypeLike | None = None
  convolve: Convolve = valid_conv
  initializers: Callable[[int], Initializers] = uniform_initializers

  def setup(self) -> None:
    features = (self.merge_features, self.embed_dim)
    self.conv = [
      ValidConv(2 - i, count, self.dtype, self.convolve, self.initializers)
      for i, count in enumerate(features)
    ]

  def __call__(self, x: jax.Array, stride: int, dilation: int) -> jax.Array:
    """Merges f32[B, h, w, D] of the level below, quadrants `dilation` grid points apart."""
    return jnp.tanh(self.conv[1](leaky_relu(self.conv[0](x, stride, dilation))))


class Encoder(nn.Module):
  """The hierarchical encoder f (Yi & Yoon 2020, section 3.4).

  Attributes:
    architecture: its shape.
    dtype: in which its layers compute; None is that of the parameters. Embeddings of bfloat16
      become float32.
    convolve: what its layers convolve with.
    initializers: how its layers are drawn, by their fan-in.
  """

  architecture: Architecture
  dtype: jax.typing.DTypeLike | None = None
  convolve: Convolve = valid_conv
  initializers: Callable[[int], Initializers] = uniform_initializers

  def setup(self) -> None:
    base, *merging = self.architecture.levels
    arch, layers = self.architecture, (self.dtype, self.convolve, self.initializers)
    levels: dict[str, nn.Module] = {f'level_{base}': BaseLevel(arch.base, *layers)}
    levels |= {
      f'level_{k}': MergeLevel(arch.merge_features, arch.embed_dim, *layers) for k in merging
    }
    for name, module in levels.items():
      setattr(self, name, module)

  def __call__(self, images: jax.Array, strides: Mapping[int, int]) -> dict[int, jax.Array]:
    """Embeds every patch of every image, all scales in one pass.

    Args:
      images: f32[B, H, W, 3], of `subtract_mean`; any H, W >= the largest receptive field.
      strides: for each receptive field K that is wanted, its stride S in pixels.

    Returns:
      For each K the grid of embeddings f32[B, (H-K)//S+1, (W-K)//S+1, D].

    Raises:
      UserError: an image is smaller than a patch, or a stride is not a multiple of the native one.
    """
    return self.embed_activations(self.activations(images), images.shape[1:3], strides)

  def activations(self, images: jax.Array, count: int | None = None) -> list[jax.Array]:
    """Returns the activations of the lowest level, each the input of the next layer.

    Args:
      images: f32[B, H, W, 3], of `subtract_mean`.
      count: how many hidden layers are computed; None: all.

    Returns:
      The images, and f32[B, h, w, C] after the leaky ReLU of each hidden layer.
    """
    hidden = len(self.architecture.base) - 1
    found: list[jax.Array] = self.level_module(self.architecture.receptive_field).activations(
      images, hidden if count is None else count
    )
    return found

  def embed_activations(
    self, activations: list[jax.Array], size: geometry.ImageSize, strides: Mapping[int, int]
  ) -> dict[int, jax.Array]:
    """Embeds as `__call__` does, by all activations of images of this (height, width)."""
    levels = self.architecture.levels
    fine = fine_strides(self.architecture, strides)
    maps: dict[int, jax.Array] = {}
    for below, level in zip((None, *levels), levels, strict=False):
      if level not in fine:
        continue
      if below is None:
        thinning = fine[level] // self.architecture.native_stride
        grid = self.level_module(level).last(activations[-1], thinning)
      else:
        grid = self.level_module(level)(
          maps[below], stride=fine[level] // fine[below], dilation=below // fine[below]
        )
      rows, columns = geometry.grid_shape(size, level, fine[level])
      # An odd last row of pixels can let one more convolution window in than there are patches.
      maps[level] = grid[:, :rows, :columns]
    return {
      level: at_least_float32(maps[level][:, :: stride // fine[level], :: stride // fine[level]])
      for level, stride in strides.items()
    }

  def embed_patches(self, patches: jax.Array) -> jax.Array:
    """Embeds patches one by one, as training does: f32[B, K, K, 3] to f32[B, D].

    The quadrants are encoded side by side, as a batch: a 64-pixel patch needs four 32-pixel
    outputs, not the 17 x 17 that lie between them.
    """
    batch, size = patches.shape[:2]
    base = self.architecture.receptive_field
    side = size // base
    quadrants = patches.reshape(batch, side, base, side, base, 3).swapaxes(2, 3)
    embedded = self.level_module(base)(quadrants.reshape(-1, base, base, 3))
    grid = embedded.reshape(batch, side, side, -1)
    for level in self.architecture.levels[1 : self.architecture.levels.index(size) + 1]:
      grid = self.level_module(level)(grid, stride=2, dilation=1)
    return at_least_float32(grid[:, 0, 0])

  def level_module(self, receptive_field: int) -> nn.Module:
    """Returns the submodule of the level with this receptive field."""
    module: nn.Module = getattr(self, f'level_{receptive_field}')
    return module

  def initialize(self, images: jax.Array) -> dict[int, jax.Array]:
    """Visits every level, for `Encoder.init`."""
    return self(images, dict.fromkeys(self.architecture.levels, self.architecture.native_stride))


def fine_strides(architecture: Architecture, strides: Mapping[int, int]) -> dict[int, int]:
  """Returns the stride at which each level must be computed for itself and those above.

  Raises:
    UserError: a stride is not a positive multiple of the native stride.
  """
  native = architecture.native_stride
  fine: dict[int, int] = {}
  needed = 0  # gcd(0, s) == s: nothing is needed from above the top
  for level in reversed(architecture.levels):
    stride = strides.get(level, 0)
    if level in strides and (stride < 1 or stride % native):
      raise UserError(
        f"a stride of {stride} at K={level} is not a multiple of the encoder's native stride "
        f'{native}: change config.score.strides'
      )
    needed = math.gcd(stride, needed)
    if needed:
      fine[level] = needed
      needed = math.gcd(needed, level // 2)
  return fine


class PositionClassifier(nn.Module):
  """Which of the 8 neighbours is the second patch? (section 3.3; Doersch et al. 2015).

  Attributes:
    train_last_layer: the authors normalise the last layer's weight over its output axis without a
      gradient, so that only its bias learns (False). True is a plain dense layer.
  """

  train_last_layer: bool = False
  hidden: int = 128

  @nn.compact
  def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns logits f32[B, 8] from two embeddings f32[B, D]."""
    x = first - second
    for index in range(2):
      x = leaky_relu(self.dense(x, self.hidden, f'dense_{index}'))
    return self.dense(x, POSITIONS, 'last', frozen=not self.train_last_layer)

  def dense(self, x: jax.Array, features: int, name: str, frozen: bool = False) -> jax.Array:
    """Returns a dense layer in full float32; `frozen` normalises its weight, without gradient."""
    initializer = uniform_initializer(x.shape[-1])
    kernel = self.param(f'{name}_kernel', initializer, (x.shape[-1], features))
    bias = self.param(f'{name}_bias', initializer, (features,))
    if frozen:
      kernel = lax.stop_gradient(kernel / jnp.linalg.norm(kernel, axis=1, keepdims=True))
    return jnp.dot(x, kernel, precision=PRECISION) + bias[None]


def init_encoder(config: ml_collections.ConfigDict) -> Params:
  """Returns an untrained encoder's parameters: a function of `config.encoder` and the seed."""
  arch = architecture.from_config(config.encoder)
  smallest = jnp.zeros((1, arch.levels[-1], arch.levels[-1], 3))
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  encoder = Encoder(arch, initializers=INITIALIZERS[config.encoder.init])
  params: Params = encoder.init(key, smallest, method='initialize')['params']
  return params
