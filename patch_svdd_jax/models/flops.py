"""What the encoder costs, counted from its shape: multiply-adds of one image, FLOPs of a step."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ml_collections

from patch_svdd_jax.models import architecture, geometry
from patch_svdd_jax.models.architecture import Architecture, strides_of
from patch_svdd_jax.models.encoder import fine_strides
from patch_svdd_jax.models.geometry import ImageSize


class Layer(NamedTuple):
  """Multiply-adds of one convolution, and whether its input is computed by another one."""

  macs: int
  is_first: bool


def base_layers(shape: Architecture, size: ImageSize, thinning: int) -> Iterator[Layer]:
  """The layers of the lowest level on an image; the last computes every `thinning`-th output."""
  rows, columns = size
  channels = 3
  for index, layer in enumerate(shape.base):
    stride = layer.stride * (thinning if index == len(shape.base) - 1 else 1)
    rows, columns = ((side - layer.kernel) // stride + 1 for side in (rows, columns))
    macs = rows * columns * layer.kernel**2 * channels * layer.features
    yield Layer(macs, index == 0)
    channels = layer.features


def merge_layers(shape: Architecture, outputs: int) -> Iterator[Layer]:
  """The layers of a level above, for so many embeddings."""
  yield Layer(outputs * 4 * shape.embed_dim * shape.merge_features, False)
  yield Layer(outputs * shape.merge_features * shape.embed_dim, False)


def image_layers(
  shape: Architecture, size: ImageSize, strides: Mapping[int, int]
) -> Iterator[Layer]:
  """All layers of one pass over an image."""
  fine = fine_strides(shape, strides)
  base, *above = shape.levels
  yield from base_layers(shape, size, fine[base] // shape.native_stride)
  for level in above:
    if level in fine:
      yield from merge_layers(shape, geometry.patch_count(size, level, fine[level]))


def patch_layers(shape: Architecture, patch: int) -> Iterator[Layer]:
  """All layers of one patch encoded by itself, its quadrants side by side."""
  base = shape.receptive_field
  for layer in base_layers(shape, (base, base), 1):
    yield layer._replace(macs=layer.macs * (patch // base) ** 2)
  for level in shape.levels[1 : shape.levels.index(patch) + 1]:
    yield from merge_layers(shape, (patch // level) ** 2)


def step_flops(config: ml_collections.ConfigDict) -> int:
  """FLOPs of the encoder in one train step, forward and both gradients; two a multiply-add.

  The first layer's input, pixels, has no gradient. Activations, the classifier, the optimiser and
  the drawing of pairs are left out, and so is what rematerialisation computes again.
  """
  shape, train = architecture.from_config(config.encoder), config.train
  if train.pairs == 'crops':
    strides = dict.fromkeys(shape.scales, shape.native_stride)
    side = train.crop_size
    passes = [(2 * train.crops, image_layers(shape, (side, side), strides))]
  else:
    passes = [(4 * train.batch_size, patch_layers(shape, k)) for k in shape.scales]
  return sum(
    count * 2 * layer.macs * (2 if layer.is_first else 3)
    for count, layers in passes
    for layer in layers
  )


def image_flops(config: ml_collections.ConfigDict) -> float:
  """Of embedding all patches of an image, two for each multiply-add of the convolutions."""
  shape = architecture.from_config(config.encoder)
  layers = image_layers(shape, tuple(config.data.image_size), strides_of(config))
  return 2.0 * sum(layer.macs for layer in layers)
