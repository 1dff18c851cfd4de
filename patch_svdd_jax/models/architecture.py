"""The encoder's shape as data: which convolutions a receptive field and a depth ask for."""

import dataclasses
import math
from collections.abc import Sequence

import ml_collections

from patch_svdd_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Convolution:
  """One square VALID convolution: kernel and stride in pixels of its input, output channels."""

  kernel: int
  stride: int
  features: int


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A hierarchical encoder (Yi & Yoon 2020, section 3.4).

  Attributes:
    receptive_field: K of the lowest level, in pixels.
    base: its convolutions, which map K x K x 3 to 1 x 1 x embed_dim.
    scales: the receptive fields asked for, descending; each is the lowest one times a power of two.
    merge_features: channels between the two convolutions by which a level joins four patches of the
      level below.
    embed_dim: D, channels of every level's embedding.
  """

  receptive_field: int
  base: tuple[Convolution, ...]
  scales: tuple[int, ...]
  merge_features: int
  embed_dim: int

  @property
  def levels(self) -> tuple[int, ...]:
    """The receptive fields of all levels, ascending, those that no scale asks for included."""
    doublings = int(math.log2(self.scales[0] // self.receptive_field))
    return tuple(self.receptive_field << level for level in range(doublings + 1))

  @property
  def native_stride(self) -> int:
    """Pixels between neighbouring outputs of the lowest level: the finest stride there is."""
    return math.prod(layer.stride for layer in self.base)

  def extent(self, layers: int) -> tuple[int, int]:
    """Returns the receptive field and the stride of an output of some of the lowest layers."""
    field, step = 1, 1
    for layer in self.base[:layers]:
      field += (layer.kernel - 1) * step
      step *= layer.stride
    return field, step


def deal_kernels(
  receptive_field: int, depth: int, strided_layers: int, strided_kernel: int
) -> tuple[int, ...]:
  """Chooses kernel sizes with which `depth` VALID convolutions map K x K to 1 x 1 exactly.

  The first `strided_layers` have the kernel `strided_kernel` and stride 2. What they leave of K is
  dealt over the others, which have stride 1, as evenly as it goes and the larger kernels first,
  where channels are few. K=32, depth 8, one strided 3x3 layer: eight 3x3 layers, the authors'
  encoder.

  Raises:
    UserError: no such kernels exist; the message says which depths can.
  """
  extent = receptive_field
  for _ in range(min(strided_layers, receptive_field)):  # by when nothing is left
    extent = (extent - strided_kernel) // 2 + 1
  to_lose, layers = extent - 1, depth - strided_layers
  if to_lose < 1:
    raise UserError(
      f'config.encoder.strided_layers={strided_layers} of stride 2 and '
      f'config.encoder.strided_kernel={strided_kernel} leave nothing of a {receptive_field}-pixel '
      'patch: lower one of them'
    )
  if not 1 <= layers <= to_lose:
    raise UserError(
      f'config.encoder.depth={depth} cannot map {receptive_field}x{receptive_field} pixels to 1x1: '
      f'depths from {strided_layers + 1} to {strided_layers + to_lose} can'
    )
  share, larger = divmod(to_lose, layers)
  dealt = tuple(1 + share + (layer < larger) for layer in range(layers))
  return (strided_kernel,) * strided_layers + dealt


def resample_channels(channels: Sequence[int], layers: int, width: float) -> tuple[int, ...]:
  """Resamples the profile `channels` to `layers` hidden channel counts, times `width`."""
  return tuple(
    max(1, round(width * channels[index * len(channels) // layers])) for index in range(layers)
  )


def check_scales(scales: Sequence[int], receptive_field: int) -> tuple[int, ...]:
  """Returns the scales, descending.

  Raises:
    UserError: a scale is not `receptive_field` times a power of two, or stands twice.
  """
  possible = [receptive_field << level for level in range(8)]
  wrong = [scale for scale in scales if scale not in possible]
  if wrong or not scales or len(set(scales)) < len(scales):
    raise UserError(
      f'config.encoder.scales={tuple(scales)}: give different values out of '
      f'{", ".join(map(str, possible))} (config.encoder.receptive_field times powers of two)'
    )
  return tuple(sorted(scales, reverse=True))


def from_config(config: ml_collections.ConfigDict) -> Architecture:
  """Returns the architecture of `config.encoder`.

  Raises:
    UserError: the depth does not fit the receptive field, a scale is not a level, or quadrants of
      a level do not lie on the grid of the level below.
  """
  kernels = deal_kernels(
    config.receptive_field, config.depth, config.strided_layers, config.strided_kernel
  )
  features = (*resample_channels(config.channels, config.depth - 1, config.width), config.embed_dim)
  base = tuple(
    Convolution(kernel, 2 if layer < config.strided_layers else 1, channels)
    for layer, (kernel, channels) in enumerate(zip(kernels, features, strict=True))
  )
  arch = Architecture(
    receptive_field=config.receptive_field,
    base=base,
    scales=check_scales(config.scales, config.receptive_field),
    merge_features=max(1, round(config.width * config.merge_features)),
    embed_dim=config.embed_dim,
  )
  if len(arch.levels) > 1 and config.receptive_field % arch.native_stride:
    raise UserError(
      f'config.encoder.receptive_field={config.receptive_field} is no multiple of the native '
      f'stride {arch.native_stride}, so that larger scales find no quadrants: lower strided_layers'
    )
  return arch


def scale_name(receptive_field: int) -> str:
  """Returns the name of a scale in parameters, metrics and tables, as 'k64'."""
  return f'k{receptive_field}'


def strides_of(config: ml_collections.ConfigDict) -> dict[int, int]:
  """Returns the stride of each receptive field, in pixels.

  Raises:
    UserError: there are not as many strides as scales.
  """
  scales, strides = config.encoder.scales, config.score.strides
  if len(scales) != len(strides):
    raise UserError(
      f'config.score.strides={tuple(strides)}: give one for each of '
      f'config.encoder.scales={tuple(scales)}'
    )
  return dict(zip(scales, strides, strict=True))
