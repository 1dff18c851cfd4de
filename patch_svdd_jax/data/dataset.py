"""What every data set becomes: arrays of one size, and what is known about each image."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

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

  def __len__(self) -> int:
    return len(self.names)

  def take(self, indices: np.ndarray) -> 'Split':
    """Returns those images, by their numbers i[M], in that order."""
    return Split(**{name: _taken(values, indices) for name, values in vars(self).items()})


def _taken(values: Any, indices: np.ndarray) -> Any:
  if isinstance(values, tuple):
    return tuple(values[index] for index in indices)
  return values[indices]


def concatenate(splits: Sequence[Split]) -> Split:
  """Returns the images of all, of one size, in that order."""
  fields = {name: [getattr(split, name) for split in splits] for name in vars(splits[0])}
  return Split(**{name: _joined(parts) for name, parts in fields.items()})


def _joined(parts: Sequence[Any]) -> Any:
  if isinstance(parts[0], tuple):
    return tuple(itertools.chain.from_iterable(parts))
  return np.concatenate(parts)


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
