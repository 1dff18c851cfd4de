"""The range of values that is black to white in files of more than 8 bits a channel.

A file of 8 bits means what it says, 0 to 255. A deep one does not: a camera of 12 bits writes 0 to
4095 into 16, another 0 to 65535, and a file of floats may hold anything. So the training images
decide for all (`resolve`), and their range is kept in `config.data.value_range`, (black, white) in
the file's own numbers; an empty one is open yet.

A value v of a range (0, 2^b - 1) becomes the grey level

  floor(256 v / 2^b),

its highest 8 bits: 8-bit values that were stored times 256, or times 257, in 16 bits come back
unchanged. In any other range it is

  round(255 (v - black) / (white - black)), cut off at 0 and 255.

A file that does not fit the range is refused (`check_fits`).
"""

import contextlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from patch_svdd_jax.data import picture
from patch_svdd_jax.data.picture import Picture
from patch_svdd_jax.errors import UserError

Range = tuple[float, float]
KEY = 'config.data.value_range'
# Of images that are not deep.
BYTES: Range = (0.0, 255.0)
BITS = tuple(range(8, 34, 2))
# By what share of the range floats may lie outside of it, and are cut off.
TOLERANCE = 0.1
# A file that reaches no more than this share of the range would be all but black.
DARKEST = 1 / 16


class Extent(NamedTuple):
  """The values of deep files: whether they are whole numbers, the least and the most."""

  whole: bool
  least: float
  most: float


def extent(found: Picture) -> Extent:
  """Returns the extent of a picture's colours."""
  whole = found.colours.dtype.kind in 'iu'
  return Extent(whole, float(found.colours.min()), float(found.colours.max()))


def deep_files(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Returns those of some image files that are deep by their headers, which alone are read.

  What cannot be read is passed over: whoever reads its pixels says so.
  """

  def is_deep(path: pathlib.Path) -> bool:
    # Headers that are damaged raise anything.
    with contextlib.suppress(Exception), path.open('rb') as file:
      return picture.may_be_deep(file)
    return False

  return [path for path in paths if is_deep(path)]


def training_extents(deep: Iterable[pathlib.Path]) -> list[Extent]:
  """Returns the extents of deep image files, each by itself; of those that can be read."""
  found = []
  for path in deep:
    with contextlib.suppress(OSError, UserError):
      read = picture.read(path.read_bytes(), str(path))
      if read.deep and np.isfinite(read.colours).all():
        found.append(extent(read))
  return found


def merge(extents: Sequence[Extent]) -> list[Extent]:
  """Returns one extent for whole numbers and one for floats, of those that there are."""
  kinds = [[each for each in extents if each.whole is whole] for whole in (True, False)]
  return [
    Extent(kind[0].whole, min(each.least for each in kind), max(each.most for each in kind))
    for kind in kinds
    if kind
  ]


def to_json(extents: Sequence[Extent]) -> str:
  """Returns extents as text."""
  return json.dumps(extents)


def from_json(text: str) -> list[Extent]:
  """Returns the extents of such a text."""
  return [Extent(*each) for each in json.loads(text)]


def resolve(given: Sequence[float], extents: Sequence[Extent]) -> Range:
  """Returns the range that is given, or else that of the training images.

  Whole numbers begin at 0 and end at the smallest 2^b - 1, b in BITS, that none exceeds. Floats
  that all lie in 0 to 1 mean that, unless none exceeds DARKEST; others range from their least to
  their most, or to 1 more where all are equal. Where no training image is deep it is 0 to 255.

  Args:
    given: `config.data.value_range`.
    extents: of the deep training images.

  Raises:
    UserError: some are whole numbers and others floats.
  """
  if given:
    return float(given[0]), float(given[1])
  merged = merge(extents)
  if not merged:
    return BYTES
  if len(merged) > 1:
    raise UserError(
      'some training images hold whole numbers of more than 8 bits and others floats: make them of '
      f'one kind, or set {KEY}'
    )
  ((whole, least, most),) = merged
  if whole:
    return 0.0, next((2.0**b - 1 for b in BITS if most < 2**b), 2.0 ** BITS[-1] - 1)
  if least >= 0 and DARKEST < most <= 1:
    return 0.0, 1.0
  return least, most if most > least else least + 1


def check(given: Sequence[float]) -> None:
  """Refuses what is no range.

  Raises:
    UserError: names the key.
  """
  if given and not (len(given) == 2 and np.isfinite(given).all() and given[0] < given[1]):
    raise UserError(
      f'{KEY}={tuple(given)}: must be (black, white), black below white, or () for the range of '
      'the training images'
    )


def resolved(config: ml_collections.ConfigDict, own: Range) -> ml_collections.ConfigDict:
  """Returns the whole config, with the range `own` where it is open."""
  if config.data.value_range:
    return config
  config = config.copy_and_resolve_references()
  config.data.value_range = own
  return config


def of(config: ml_collections.ConfigDict) -> Range:
  """Returns the range by which `config` (config.data) reads files; of 8 bits where it is open."""
  return resolve(config.value_range, ())


def check_fits(values: Extent, within: Range, name: str) -> None:
  """Refuses a deep file that another range was meant for.

  Whole numbers of a range (0, 2^b - 1) have to lie in it. In other ranges TOLERANCE of their width
  is cut off. What is not 0 throughout has to reach more than DARKEST of the range: numbers of 12
  bits would be all but black where 16 are expected.

  Raises:
    UserError: names the file, what it holds and the range.
  """
  black, white = within
  slack = 0.0 if _is_bits(within) else TOLERANCE * (white - black)
  holds = f'holds values from {values.least:g} to {values.most:g}'
  wanted = f'the training images ({KEY}) range from {black:g} to {white:g}'
  if values.least < black - slack or values.most > white + slack:
    raise UserError(f'{name}: {holds}, but {wanted}; save it as they are, or train with it')
  darkest = values.whole and within == BYTES  # no whole numbers have fewer bits
  if not darkest and black < values.most < black + DARKEST * (white - black):
    raise UserError(
      f'{name}: {holds} and would be all but black, for {wanted}; save it as they are'
    )


def _is_bits(within: Range) -> bool:
  return within[0] == 0 and within[1] in [2.0**b - 1 for b in BITS]


def to_levels(found: Picture, within: Range, name: str) -> np.ndarray:
  """Returns the colours of a picture as grey levels u8[H, W, 1 or 3].

  Args:
    found: 8-bit or deep.
    within: the range of deep values that is black to white.
    name: of the file.

  Raises:
    UserError: it is deep and does not fit the range.
  """
  colours = found.colours
  if not found.deep:
    return colours
  if not np.isfinite(colours).all():
    raise UserError(f'{name}: holds values that are no numbers (NaN or infinite); replace them')
  check_fits(extent(found), within, name)
  levels = np.empty(colours.shape, np.uint8)
  for row, values in enumerate(colours):  # one by one, for 64-bit numbers take much memory
    levels[row] = _levels(values, within)
  return levels


def _levels(values: np.ndarray, within: Range) -> np.ndarray:
  black, white = within
  if _is_bits(within):
    levels = np.floor(values.astype(np.float64) * (256 / (white + 1)))
  else:
    levels = np.round(255 * (values.astype(np.float64) - black) / (white - black))
  return np.clip(levels, 0, 255)
