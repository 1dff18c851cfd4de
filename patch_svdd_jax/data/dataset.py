"""What every data set becomes: arrays of one size, and what is known about each image."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from patch_svdd_jax.data.report import DataReport


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """N images of one size and what is known about them.

  Attributes:
    images: u8[N, H, W, 3], RGB.
    masks: bool[N, H, W], True where anomalous; all False where normal or unknown.
    has_mask: bool[N], whether the mask is known: True for normal images, False for anomalous ones
      that came without a mask file.
    labels: bool[N], True for anomalous.
    defects: defect type of each image, 'good' for normal ones.
    names: path of each image relative to its category, such as 'test/scratch/003.png'.
    sizes: i64[N, 2], (height, width) in pixels that the images had before they were resized.
    appearance: f32[N, 4] of `appearance.image_statistics`, of the images of H x W pixels, before
      their light was standardised.
    digests: of each image's file and those of its masks, or of its array, before it was resized:
      by them other data are told.
    regions: bool[N, H, W], True where an image is judged; None where all of it is, in all images.
      A region that all have in common is a broadcast view.
  """

  images: np.ndarray
  masks: np.ndarray
  has_mask: np.ndarray
  labels: np.ndarray
  defects: tuple[str, ...]
  names: tuple[str, ...]
  sizes: np.ndarray
  appearance: np.ndarray
  digests: tuple[str, ...]
  regions: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.names)

  @property
  def fixed_region(self) -> np.ndarray | None:
    """Returns the region bool[H, W] that all images have in common; None where there is none."""
    return self.regions[0] if is_fixed(self.regions) else None

  def region_of(self, index: int | np.integer[Any]) -> np.ndarray | None:
    """Returns the region bool[H, W] of one image; None: all of it."""
    return None if self.regions is None else self.regions[index]

  def take(self, indices: np.ndarray) -> 'Split':
    """Returns those images, by their numbers i[M], in that order."""
    return Split(**{name: _taken(values, indices) for name, values in vars(self).items()})


def is_fixed(regions: np.ndarray | None) -> TypeGuard[np.ndarray]:
  """Returns whether regions bool[N, H, W] are one broadcast to all images."""
  return regions is not None and len(regions) > 0 and not regions.strides[0]


def regions_of(train: Split, held_out: Split) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the regions of training and of held-out images; None where they have none."""
  if train.regions is None or held_out.regions is None:
    return None
  return train.regions, held_out.regions


def _taken(values: Any, indices: np.ndarray) -> Any:
  if values is None:
    return None
  if isinstance(values, tuple):
    return tuple(values[index] for index in indices)
  if isinstance(values, np.ndarray) and is_fixed(values):
    return np.broadcast_to(values[0], (len(indices), *values.shape[1:]))
  return values[indices]


def concatenate(splits: Sequence[Split]) -> Split:
  """Returns the images of all, of one size, in that order."""
  fields = {
    name: _joined([getattr(split, name) for split in splits])
    for name in vars(splits[0])
    if name != 'regions'
  }
  return Split(**fields, regions=_joined_regions(splits))


def _joined(parts: Sequence[Any]) -> Any:
  if isinstance(parts[0], tuple):
    return tuple(itertools.chain.from_iterable(parts))
  return np.concatenate(parts)


def _joined_regions(splits: Sequence[Split]) -> np.ndarray | None:
  """Returns the regions of all images, all of an image where its split has none."""
  filled = [split for split in splits if len(split)] or splits[:1]
  if all(split.regions is None for split in filled):
    return None
  size = filled[0].images.shape[1:3]
  each = [
    np.broadcast_to(True, (len(split), *size)) if split.regions is None else split.regions
    for split in filled
  ]
  if all(is_fixed(regions) and np.array_equal(regions[0], each[0][0]) for regions in each):
    return np.broadcast_to(each[0][0], (sum(map(len, each)), *size))
  return np.concatenate(each)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A category, or several as one: normal images to train on, others to score if there are any.

  Attributes:
    name: data set and category, such as 'mvtec/screw'.
    train: normal images to train on and to remember.
    held_out: other normal images, to judge an encoder by without labels; N = 0 unless
      `config.data.held_out` asks for some.
    test: normal and anomalous images; N = 0 where the category has none.
    categories: that it combines, see `categories.combine`; none where it is a single one.
    lights: that each test image was taken in, '' of those whose name does not say it; none where no
      name does.
    report: what its files are, and what is wrong with them; empty where there are no files.
    value_range: by which deep files were read, see `value_range`.
    decode_seconds: of a test image, to read, decode, resize and light it; several at a time. None
      where there was none to decode.
  """

  name: str
  train: Split
  held_out: Split
  test: Split
  categories: tuple[str, ...] = ()
  lights: tuple[str, ...] = ()
  report: DataReport = dataclasses.field(default_factory=DataReport)
  value_range: tuple[float, float] = (0.0, 255.0)
  decode_seconds: float | None = None
