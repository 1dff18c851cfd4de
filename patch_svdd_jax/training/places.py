"""Where pairs may be drawn from regions of interest: tables of pairs whose patches both count.

The tables are made on the host before training, lie on the devices, and a pair is a row that its
key chooses. They hold pairs evenly out of all that there are: the pairs of a kind are numbered, in
reading order of their first patches, and one is taken at random from each of as many equal runs of
numbers as the table has rows; where there are fewer pairs than rows, all are there. So each
position of L_SSL that fits anywhere is as frequent as the others, and its pairs are uniform over
those that count.

Regions that all images have in common have one table for all; where each image has its own, each
has equally many rows of every kind of pair that fits into it.
"""

from collections.abc import Iterable, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, geometry
from patch_svdd_jax.models.architecture import Architecture
from patch_svdd_jax.training import crops, sampling
from patch_svdd_jax.training.place_tables import CropPlaces, PairTable, PatchPlaces, Places

# Rows of a kind of pair: in all, and of each image at least.
ROWS, ROWS_OF_IMAGE = 2**15, 64
# Crops, likewise, and the pairs that each has at a scale.
CROPS, CROPS_OF_IMAGE, PAIRS_OF_CROP = 1024, 4, 64
# Crops that are tried for each that is wanted.
_TRIES = 8

# Offsets between the patches of a pair: the first and last row, the first and last column.
Offsets = tuple[int, int, int, int]


def make(config: ml_collections.ConfigDict, regions: np.ndarray | None) -> Places | None:
  """Returns the tables of the training images' regions; None where there is no region.

  Args:
    config: the whole config.
    regions: bool[N, H, W]; one broadcast to all where they have it in common.

  Raises:
    UserError: no pair of some scale counts; says what to do.
  """
  if regions is None:
    return None
  is_fixed = not regions.strides[0]
  distinct = regions[:1] if is_fixed else regions
  if config.train.pairs == 'crops':
    return _crops(config, distinct, is_fixed)
  share, mode = config.data.region_share, config.train.position_pairs
  return {
    k: PatchPlaces(
      _table(distinct, is_fixed, k, share, position_kinds(k), clipped=mode == 'clip'),
      _table(distinct, is_fixed, k, share, {0: neighbour_offsets(k)}, clipped=False),
    )
    for k in config.encoder.scales
  }


def position_kinds(patch: int) -> dict[int, list[Offsets]]:
  """Returns the offsets of each position of `sampling.DIRECTIONS`, in pixels."""
  return offsets_of_positions(3 * patch // 4, patch - 1)


def offsets_of_positions(near: int, far: int) -> dict[int, list[Offsets]]:
  """Returns the offsets of each position, from `near` to `far` along the axes of its direction."""

  def along(sign: int) -> tuple[int, int]:
    return (near, far) if sign > 0 else (-far, -near) if sign < 0 else (0, 0)

  return {
    position: [(*along(row), *along(column))]
    for position, (row, column) in enumerate(sampling.DIRECTIONS)
  }


def neighbour_offsets(patch: int) -> list[Offsets]:
  """Returns the offsets of neighbours: the square around a patch without its middle."""
  reach = sampling.neighbour_reach(patch)
  return [
    (-reach, -1, -reach, reach),
    (0, 0, -reach, -1),
    (0, 0, 1, reach),
    (1, reach, -reach, reach),
  ]


class Partners:
  """The pairs of a first patch of one grid with a second of another, at some offsets.

  Args:
    first: bool[rows, columns], which patches may be first.
    second: bool[rows, columns], which may be second.
    offsets: from the first to the second.
    clipped: whether a second that lies outside the grid is moved to its edge.
  """

  def __init__(
    self, first: np.ndarray, second: np.ndarray, offsets: Sequence[Offsets], clipped: bool = False
  ):
    self._offsets = offsets
    self._reach = max(map(abs, (side for each in offsets for side in each)), default=0)
    self._shape = first.shape
    padded = np.pad(second, self._reach, mode='edge' if clipped else 'constant')
    # [i, j] is how many of row i, left of column j, may be second; then of all rows above, too.
    self._in_rows = np.pad(padded.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    sums = np.pad(self._in_rows.cumsum(axis=0, dtype=np.int64), ((1, 0), (0, 0)))
    counts = [np.where(first, self._count(sums, each), 0) for each in offsets]
    self._ends = np.concatenate([count.ravel() for count in counts]).cumsum()

  @property
  def total(self) -> int:
    """How many pairs there are."""
    return int(self._ends[-1])

  def _count(self, sums: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Returns how many seconds each first has in a rectangle, i64[rows, columns]."""
    top, bottom, left, right = (side + self._reach for side in offsets)
    rows, columns = self._shape

    def at(row: int, column: int) -> np.ndarray:
      return sums[row : row + rows, column : column + columns]

    both = at(bottom + 1, right + 1) - at(top, right + 1)
    counts: np.ndarray = both - at(bottom + 1, left) + at(top, left)
    return counts

  def take(self, numbers: np.ndarray) -> np.ndarray:
    """Returns the pairs of some numbers below `total`, i64[M, 2, 2]: both, as row and column."""
    cells = np.searchsorted(self._ends, numbers, side='right')
    left = numbers - np.concatenate([[0], self._ends])[cells]
    which, cells = np.divmod(cells, self._shape[0] * self._shape[1])
    first = np.stack(np.divmod(cells, self._shape[1]), axis=1)
    second = np.zeros_like(first)
    for index, offsets in enumerate(self._offsets):
      chosen = which == index
      second[chosen] = self._nth(first[chosen], left[chosen], offsets)
    last = np.array(self._shape) - 1
    return np.stack([first, np.clip(second, 0, last)], axis=1)

  def _nth(self, first: np.ndarray, numbers: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Returns the second of each first i64[M, 2] that has a number among those in a rectangle."""
    top, bottom, left, right = offsets
    rows = first[:, :1] + self._reach + np.arange(top, bottom + 1)[None]
    start = first[:, 1:] + self._reach + left
    ends = (self._in_rows[rows, start + right - left + 1] - self._in_rows[rows, start]).cumsum(
      axis=1
    )
    row = (ends <= numbers[:, None]).sum(axis=1)
    each = np.arange(len(first))
    numbers = numbers - np.where(row > 0, ends[each, row - 1], 0)
    row = rows[each, row]
    columns = start + np.arange(1, right - left + 2)[None]
    seen = self._in_rows[row[:, None], columns] - self._in_rows[row, start[:, 0]][:, None]
    column = start[:, 0] + (seen <= numbers[:, None]).sum(axis=1)
    return np.stack([row, column], axis=1) - self._reach


def spread(total: int, count: int, generator: np.random.Generator) -> np.ndarray:
  """Returns numbers below `total`, i64[M]: one out of each of `count` equal runs, or all."""
  if total <= count:
    return np.arange(total)
  found = ((np.arange(count) + generator.random(count)) * (total / count)).astype(np.int64)
  return np.minimum(found, total - 1)


def _table(
  regions: np.ndarray,
  is_fixed: bool,
  patch: int,
  share: float,
  kinds: dict[int, list[Offsets]],
  clipped: bool,
) -> PairTable:
  """Returns the table of some kinds of pairs of K = `patch` in R regions bool[R, H, W]."""
  generator = np.random.default_rng(patch)
  rows = ROWS if is_fixed else max(ROWS_OF_IMAGE, ROWS // len(regions))
  found: dict[int, list[tuple[int, np.ndarray]]] = {kind: [] for kind in kinds}
  for index, region in enumerate(regions):
    inside = geometry.patches_inside(region, patch, 1, share)
    for kind, offsets in kinds.items():
      partners = Partners(inside, inside, offsets, clipped)
      if partners.total:
        numbers = spread(partners.total, rows, generator)
        # Images are as frequent as each other, whether they have many pairs or few.
        numbers = numbers[np.arange(rows) % len(numbers)] if not is_fixed else numbers
        found[kind].append((index, partners.take(numbers).astype(np.uint16)))
  kept = {kind: parts for kind, parts in found.items() if parts}
  if not kept:
    raise UserError(
      f'no two patches of K={patch} that lie side by side have {100 * share:.3g} % of their pixels '
      'in the region, to be trained on: lower config.data.region_share, enlarge the region or '
      'config.data.image_size, or drop the scale of config.encoder.scales'
    )
  counts = [sum(len(pairs) for _, pairs in parts) for parts in kept.values()]
  every = [part for parts in kept.values() for part in parts]
  return PairTable(
    None if is_fixed else np.repeat(*map(np.array, _indices(every))).astype(np.int32),
    np.concatenate([pairs for _, pairs in every]),
    np.array(list(kept), np.int32),
    (np.cumsum(counts) - counts).astype(np.int32),
    np.array(counts, np.int32),
  )


def _indices(parts: Iterable[tuple[int, np.ndarray]]) -> tuple[list[int], list[int]]:
  """Returns the image of each part, and how many pairs it has."""
  indices, lengths = zip(*((index, len(pairs)) for index, pairs in parts), strict=True)
  return list(indices), list(lengths)


def _crops(config: ml_collections.ConfigDict, regions: np.ndarray, is_fixed: bool) -> CropPlaces:
  """Returns crops of R regions bool[R, H, W] in which pairs of every scale count."""
  generator = np.random.default_rng(0)
  arch = architecture.from_config(config.encoder)
  wanted = CROPS if is_fixed else max(CROPS_OF_IMAGE, CROPS // len(regions))
  found = []
  for index, region in enumerate(regions):
    inside = {
      k: geometry.patches_inside(region, k, 1, config.data.region_share) for k in arch.scales
    }
    places = np.argwhere(inside[arch.scales[0]])
    own = 0
    for _ in range(_TRIES * wanted if len(places) else 0):
      corners = _random_crop(generator, places, region.shape, config.train.crop_size, arch)
      if points := _points(inside, corners, config.train.crop_size, arch, generator):
        found.append((index, corners, points))
        own += 1
        if own == wanted:
          break
  if not found:
    raise UserError(
      f'no crop of config.train.crop_size={config.train.crop_size} pixels was found that has pairs '
      f'of all scales in the region: lower config.data.region_share, enlarge the region or the '
      "crops, or set config.train.pairs='patches'"
    )
  return CropPlaces(
    None if is_fixed else np.array([index for index, _, _ in found], np.int32),
    np.array([corners for _, corners, _ in found], np.int32),
    {k: np.stack([points[k] for _, _, points in found]) for k in arch.scales},
  )


def _random_crop(
  generator: np.random.Generator,
  places: np.ndarray,
  image_size: geometry.ImageSize,
  side: int,
  arch: Architecture,
) -> np.ndarray:
  """Returns the corners i64[2, 2] of a crop's views, the first of which has one of some patches."""
  reach = sampling.neighbour_reach(arch.scales[0])
  width = 2 * reach + 1
  number = generator.integers(width * width - 1)
  shift = np.array(divmod(number + (number >= width * width // 2), width)) - reach
  within = generator.integers(0, side - arch.scales[0] + 1, 2)
  place = places[generator.integers(len(places))]
  last = np.array(image_size) - side
  first = np.clip(place - within, np.maximum(0, -shift), last - np.maximum(0, shift))
  return np.stack([first, first + shift])


def _points(
  inside: dict[int, np.ndarray],
  corners: np.ndarray,
  side: int,
  arch: Architecture,
  generator: np.random.Generator,
) -> dict[int, np.ndarray] | None:
  """Returns pairs of each scale in a crop, u16[Q, 7], see `CropPlaces`; None where one has none."""
  found = {}
  for k, counted in inside.items():
    extent = side - k + 1
    first, second = (
      counted[top : top + extent : arch.native_stride, left : left + extent : arch.native_stride]
      for top, left in corners
    )
    kinds = offsets_of_positions(*crops.offsets(k, arch.native_stride)).items()
    partners = {kind: each for kind, o in kinds if (each := Partners(first, second, o)).total}
    anchors = np.argwhere(first & second)
    if not partners or not len(anchors):
      return None
    rows = np.arange(PAIRS_OF_CROP)
    of_kinds = np.array_split(rows, len(partners))
    pairs = np.concatenate(
      [
        np.column_stack([each.take(_again(each.total, len(part), generator)).reshape(-1, 4)])
        for each, part in zip(partners.values(), of_kinds, strict=True)
      ]
    )
    positions = np.repeat(np.array(list(partners)), [len(part) for part in of_kinds])
    anchor = anchors[_again(len(anchors), PAIRS_OF_CROP, generator)]
    found[k] = np.column_stack([pairs, positions, anchor]).astype(np.uint16)
  return found


def _again(total: int, count: int, generator: np.random.Generator) -> np.ndarray:
  """Returns `spread` numbers, again from the first on where there are fewer than `count`."""
  numbers = spread(total, count, generator)
  return numbers[np.arange(count) % len(numbers)]
