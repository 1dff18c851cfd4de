"""Tables of pairs that may be drawn where there are regions of interest; `places` makes them."""

from typing import NamedTuple

import jax
import numpy as np

Array = np.ndarray | jax.Array


class PairTable(NamedTuple):
  """Pairs of patches of one scale, one kind after another.

  Attributes:
    images: i32[M], the image of each; none where all have one region.
    corners: u16[M, 2, 2], of both patches.
    kinds: i32[F], the kinds there are: the positions, or 0 for neighbours.
    starts, counts: i32[F], the rows of each kind.
  """

  images: Array | None
  corners: Array
  kinds: Array
  starts: Array
  counts: Array


class PatchPlaces(NamedTuple):
  """Of one scale the position pairs and the neighbour pairs."""

  positions: PairTable
  neighbours: PairTable


class CropPlaces(NamedTuple):
  """Crops in which pairs of every scale count.

  Attributes:
    images: i32[M]; none where all have one region.
    corners: i32[M, 2, 2], of both views.
    points: of each scale u16[M, Q, 7]: the points of a position pair in the first and in the second
      view, its position, and the point of a neighbour pair.
  """

  images: Array | None
  corners: Array
  points: dict[int, Array]


# By scale, or of crops.
Places = dict[int, PatchPlaces] | CropPlaces
