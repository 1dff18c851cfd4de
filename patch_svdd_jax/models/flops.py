"""What the encoder and its features cost, by their shapes: of one image, of a train step."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ml_collections

from patch_svdd_jax.models import architecture, features, geometry
from patch_svdd_jax.models.architecture import Architecture, strides_of
from patch_svdd_jax.models.encoder import fine_strides
from patch_svdd_jax.models.geometry import ImageSize


class Layer(NamedTuple):
  """Multiply-adds of one convolution, and whether its input is computed by another one."""

  macs: int
  is_first: bool


def base_layers(arch: Architecture, size: ImageSize, thinning: int) -> Iterator[Layer]:
  """Yields the lowest level's layers; the last computes every `thinning`-th output."""
  rows, columns = size
  channels = 3
  for index, layer in enumerate(arch.base):
    stride = layer.stride * (thinning if index == len(arch.base) - 1 else 1)
    rows, columns = ((side - layer.kernel) // stride + 1 for side in (rows, columns))
    macs = rows * columns * layer.kernel**2 * channels * layer.features
    yield Layer(macs, index == 0)
    channels = layer.features


def merge_layers(arch: Architecture, outputs: int) -> Iterator[Layer]:
  """Yields the layers of a level above, for so many embeddings."""
  yield Layer(outputs * 4 * arch.embed_dim * arch.merge_features, False)
  yield Layer(outputs * arch.merge_features * arch.embed_dim, False)


def image_layers(
  arch: Architecture, size: ImageSize, strides: Mapping[int, int]
) -> Iterator[Layer]:
  """Yields all layers of one pass over an image."""
  fine = fine_strides(arch, strides)
  base, *above = arch.levels
  yield from base_layers(arch, size, fine[base] // arch.native_stride)
  for level in above:
    if level in fine:
      yield from merge_layers(arch, geometry.patch_count(size, level, fine[level]))


def patch_layers(arch: Architecture, patch: int) -> Iterator[Layer]:
  """Yields all layers of one patch encoded by itself, its quadrants side by side."""
  base = arch.receptive_field
  for layer in base_layers(arch, (base, base), 1):
    yield layer._replace(macs=layer.macs * (patch // base) ** 2)
  for level in arch.levels[1 : arch.levels.index(patch) + 1]:
    yield from merge_layers(arch, (patch // level) ** 2)


def step_flops(config: ml_collections.ConfigDict) -> int:
  """Counts FLOPs of the encoder in one train step, forward and backward; two a multiply-add.

  The first layer's input, pixels, has no gradient. Activations, the classifier, the optimiser and
  the drawing of pairs are left out, and so is what rematerialisation computes again.
  """
  arch, train = architecture.from_config(config.encoder), config.train
  if train.pairs == 'crops':
    strides = dict.fromkeys(arch.scales, arch.native_stride)
    side = train.crop_size
    passes = [(2 * train.crops, image_layers(arch, (side, side), strides))]
  else:
    passes = [(4 * train.batch_size, patch_layers(arch, k)) for k in arch.scales]
  return sum(
    count * 2 * layer.macs * (2 if layer.is_first else 3)
    for count, layers in passes
    for layer in layers
  )


def embedding_flops(config: ml_collections.ConfigDict) -> float:
  """Counts FLOPs to embed all patches of an image, two for each multiply-add of convolutions."""
  arch = architecture.from_config(config.encoder)
  layers = image_layers(arch, tuple(config.data.image_size), strides_of(config))
  return 2.0 * sum(layer.macs for layer in layers)


def image_flops(config: ml_collections.ConfigDict) -> float:
  """Counts FLOPs to describe all patches of an image by `config.score.features`, projected."""
  arch, strides = architecture.from_config(config.encoder), strides_of(config)
  size, found = tuple(config.data.image_size), features.from_config(config.score)
  if 'embedding' in found.names:
    macs = sum(layer.macs for layer in image_layers(arch, size, strides))
  else:
    hidden = features.layers_needed(found.names, arch)
    macs = sum(layer.macs for layer in list(base_layers(arch, size, 1))[:hidden])
  for k, stride in strides.items():
    grid = geometry.grid_shape(size, k, stride)
    macs += pooling_macs(arch, size, grid, found.names)
    if found.projected:
      macs += grid[0] * grid[1] * found.raw.dim(arch) * found.dim(arch)
  return 2.0 * macs


def pooling_macs(
  arch: Architecture, size: ImageSize, grid: tuple[int, int], names: tuple[str, ...]
) -> int:
  """Counts multiply-adds that pool features of these names over a grid of patches."""
  shapes = []  # rows, columns and channels of what is pooled, and regions along a patch's side
  if 'thumbnail' in names:
    shapes.append((*size, 3, features.CELLS))
  if 'hidden' in names:
    for layer in features.hidden_layers(arch):
      seen = arch.extent(layer)
      sides = (geometry.grid_extent(side, *seen) for side in size)
      shapes.append((*sides, arch.base[layer - 1].features, 1))
  return sum(
    cells * grid[0] * columns * channels * (rows + cells * grid[1])
    for rows, columns, channels, cells in shapes
  )
