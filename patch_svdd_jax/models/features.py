"""What a patch is described by: its embedding, hidden activations, a thumbnail, or several of them.

The blocks of a patch's vector lie behind each other. Where there is more than the embedding, their
scales differ, and an affine map brings them to one: x -> (x - mean) @ matrix, which is fitted to
normal images (`detection.projection`) and kept with the encoder's parameters, as 'projection'.

Pooled activations of hidden layers, of a pretrained network, are the vectors of PatchCore (Roth et
al., CVPR 2022); whitened pixels of small patches those of Coates et al. (AISTATS 2011).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, geometry
from patch_svdd_jax.models.architecture import Architecture, scale_name
from patch_svdd_jax.models.encoder import Encoder, Params
from patch_svdd_jax.system.sharding import PRECISION

# The convolutions of the lowest level after which activations are pooled, of those that are hidden.
HIDDEN = (2, 3)
# Cells of a thumbnail along each side.
CELLS = 4
# Its key among the parameters.
PROJECTION = 'projection'


class Features(NamedTuple):
  """What patches are described by.

  Attributes:
    names: of the blocks, in their order: 'embedding', 'hidden', 'thumbnail'.
    projected: whether the affine map is applied.
    components: of the whitened blocks, how many principal ones are kept at most; 0: not whitened.
  """

  names: tuple[str, ...] = ('embedding',)
  projected: bool = False
  components: int = 0

  @property
  def raw(self) -> 'Features':
    """The blocks as they are, to which the affine map is fitted."""
    return Features(self.names)

  def widths(self, arch: Architecture) -> list[int]:
    """Returns the numbers of each block; each hidden layer is one."""
    widths = {
      'embedding': [arch.embed_dim],
      'hidden': [arch.base[layer - 1].features for layer in hidden_layers(arch)],
      'thumbnail': [3 * CELLS**2],
    }
    return [width for name in self.names for width in widths[name]]

  def dim(self, arch: Architecture) -> int:
    """Returns D, the numbers that describe a patch."""
    raw = sum(self.widths(arch))
    return min(self.components, raw) if self.components else raw


# The encoder's embedding and nothing else.
EMBEDDING = Features()


def from_config(config: ml_collections.ConfigDict) -> Features:
  """Returns the features of `config.score`."""
  names = tuple(config.features)
  projected = config.whiten or names != EMBEDDING.names
  return Features(names, projected, config.components if config.whiten else 0)


def dim_of(config: ml_collections.ConfigDict) -> int:
  """Returns D of a whole config: the numbers of a memory bank's row."""
  return from_config(config.score).dim(architecture.from_config(config.encoder))


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses features that the encoder or the scales do not have.

  Raises:
    UserError: says which, and what has them.
  """
  names = tuple(config.score.features)
  arch = architecture.from_config(config.encoder)
  if len(set(names)) < len(names):
    raise UserError(f'config.score.features={names}: give each once')
  if 'hidden' in names and not hidden_layers(arch):
    raise UserError(
      f"config.score.features={names}: 'hidden' is of the second and third convolution, where they "
      f'are not the last: config.encoder.depth={config.encoder.depth} must be at least 3'
    )
  uneven = [scale for scale in arch.scales if scale % CELLS]
  if 'thumbnail' in names and uneven:
    raise UserError(
      f"config.score.features={names}: the side of a 'thumbnail' has {CELLS} cells, by which "
      f'K={uneven[0]} cannot be divided: change config.encoder.receptive_field'
    )


def has_thumbnails(config: ml_collections.ConfigDict) -> bool:
  """Returns whether the patches of every scale have thumbnails: their cells are whole pixels."""
  return not any(scale % CELLS for scale in config.encoder.scales)


def thumbnails_alone(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the config of a detector that describes patches by whitened thumbnails alone.

  It compares what patches look like in few pixels, for which no encoder is needed. All else is as
  in the config that is given.
  """
  alone = config.copy_and_resolve_references()
  alone.score.features, alone.score.whiten = ('thumbnail',), True
  return alone


def hidden_layers(arch: Architecture) -> tuple[int, ...]:
  """Returns the numbers of the layers whose activations are pooled, counted from 1."""
  return tuple(layer for layer in HIDDEN if layer < len(arch.base))


def layers_needed(names: tuple[str, ...], arch: Architecture) -> int:
  """Returns how many hidden layers must be computed."""
  needed = {'embedding': len(arch.base) - 1, 'hidden': max(HIDDEN), 'thumbnail': 0}
  return min(max(needed[name] for name in names), len(arch.base) - 1)


def describe(
  encoder: Encoder, pixels: jax.Array, strides: Mapping[int, int], names: tuple[str, ...]
) -> dict[int, jax.Array]:
  """Describes every patch of every image by the blocks of these names, as they are.

  Args:
    encoder: bound to its parameters.
    pixels: f32[B, H, W, 3], of `subtract_mean`.
    strides: of each receptive field, in pixels.
    names: of the blocks.

  Returns:
    f32[B, rows, columns, D] of each receptive field.
  """
  arch = encoder.architecture
  size = pixels.shape[1:3]
  activations = encoder.activations(pixels, layers_needed(names, arch))
  blocks: dict[int, list[jax.Array]] = {k: [] for k in strides}
  for name in names:
    if name == 'embedding':
      for k, grid in encoder.embed_activations(activations, size, strides).items():
        blocks[k].append(grid)
      continue
    for k, stride in strides.items():
      corners = [np.arange(count) * stride for count in geometry.grid_shape(size, k, stride)]
      if name == 'thumbnail':
        blocks[k].append(thumbnails(pixels, corners, k))
      else:
        blocks[k] += [
          pool(activations[layer], corners, k, arch.extent(layer)) for layer in hidden_layers(arch)
        ]
  return {
    k: grids[0] if len(grids) == 1 else jnp.concatenate(grids, axis=-1)
    for k, grids in blocks.items()
  }


def pool(
  activations: jax.Array, corners: list[np.ndarray], extent: int, seen: tuple[int, int] = (1, 1)
) -> jax.Array:
  """Returns the mean of the activations that see nothing but a region of pixels.

  Along each axis it is a product with a matrix, which is fast everywhere, however regions overlap.
  Images go one by one: of many together a CPU would move all activations first.

  Args:
    activations: f32[B, h, w, C].
    corners: i[R] and i[S], the first row of each region and the first column.
    extent: pixels along a region's sides.
    seen: pixels along a side that one activation sees, and from it to the next one.

  Returns:
    f32[B, R, S, C].
  """
  rows, columns = (
    geometry.pooling_weights(first, extent, outputs, *seen)
    for first, outputs in zip(corners, activations.shape[1:3], strict=True)
  )

  def of_image(image: jax.Array) -> jax.Array:
    of_rows = jnp.einsum('rh,hwc->rwc', rows, image, precision=PRECISION)
    return jnp.einsum('sw,rwc->rsc', columns, of_rows, precision=PRECISION)

  pooled: jax.Array = lax.map(of_image, activations)
  return pooled


def thumbnails(pixels: jax.Array, corners: list[np.ndarray], extent: int) -> jax.Array:
  """Returns the means of a patch's 4 x 4 cells, f32[B, R, S, 48], row by row, of f32[B, H, W, 3].

  Args:
    pixels: of images.
    corners: i[R] and i[S], the first row of each patch and the first column.
    extent: K, a multiple of 4.
  """
  side = extent // CELLS
  cells = [(first[:, None] + side * np.arange(CELLS)).ravel() for first in corners]
  rows, columns = map(len, corners)
  means = pool(pixels, cells, side).reshape(-1, rows, CELLS, columns, CELLS, 3)
  return means.swapaxes(2, 3).reshape(-1, rows, columns, 3 * CELLS**2)


def project(grids: Mapping[int, jax.Array], params: Params) -> dict[int, jax.Array]:
  """Computes (x - mean) @ matrix of each x, f32[..., F] to f32[..., D], for each scale."""

  def one(grid: jax.Array, mean: jax.Array, matrix: jax.Array) -> jax.Array:
    centred = grid - mean.reshape((1,) * (grid.ndim - 1) + mean.shape)
    return jnp.dot(centred, matrix, precision=PRECISION)

  return {k: one(grid, **params[PROJECTION][scale_name(k)]) for k, grid in grids.items()}


def empty(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns a projection of zeros, as the parameters would have it, for who only compiles.

  Where `config.score` asks for none, nothing.
  """
  found = from_config(config.score)
  if not found.projected:
    return {}
  arch = architecture.from_config(config.encoder)
  width, dim = found.raw.dim(arch), found.dim(arch)
  return {
    PROJECTION: {
      scale_name(k): {'mean': jnp.zeros(width), 'matrix': jnp.zeros((width, dim))}
      for k in arch.scales
    }
  }
