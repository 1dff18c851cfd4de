"""How batches are made: padded, spread evenly, and shown while they are worked on."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

# Wraps the batches of a task, to show how far it is.
Progress = Callable[[Iterable[int]], Iterable[int]]


class Bar(tqdm):
  """A progress bar, hidden in all processes of several but the first."""

  hidden = False

  def __init__(self, *arguments: Any, **options: Any):
    super().__init__(*arguments, disable=self.hidden, **options)


def pad_images(images: np.ndarray, count: int) -> np.ndarray:
  """Pads `images` with black ones to `count` in all."""
  if count == len(images):
    return images
  padding = [(0, count - len(images))] + [(0, 0)] * (images.ndim - 1)
  return np.pad(images, padding)


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
  """Returns the middles of `wanted` equal runs of 0 .. count - 1, i64[wanted], or all."""
  wanted = min(count, wanted)
  return (2 * np.arange(wanted) + 1) * count // (2 * max(wanted, 1))
