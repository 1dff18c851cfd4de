"""All categories of a data set: which are there, and all of them as one data set."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from patch_svdd_jax.data import layout, recognition
from patch_svdd_jax.data.dataset import Split, concatenate
from patch_svdd_jax.errors import UserError

# Names of categories: of each by itself, and of all together as one.
EVERY, MULTICLASS = 'all', 'multiclass'


def subfolders(root: pathlib.Path) -> list[str]:
  """Returns the folders that are sets by themselves, each a category, in natural order.

  Raises:
    UserError: there is no such root.
  """
  try:
    names = [place.name for place in root.iterdir() if recognition.is_category(place)]
  except OSError as error:
    raise UserError(f'{root}: cannot be read ({error.strerror}); check config.data.root') from error
  return sorted(names, key=layout.natural_key)


def combine(splits: Mapping[str, Split]) -> Split:
  """Joins the images of all categories; names and defects begin with their category."""
  return concatenate([_within(category, split) for category, split in splits.items()])


def _within(category: str, split: Split) -> Split:
  defects = (d if d == layout.GOOD else f'{category}/{d}' for d in split.defects)
  return dataclasses.replace(
    split, names=tuple(f'{category}/{name}' for name in split.names), defects=tuple(defects)
  )


def indices(names: Sequence[str], category: str) -> np.ndarray:
  """Returns the numbers i[M] of the images of `combine` that are of a category."""
  return np.array([i for i, name in enumerate(names) if name.startswith(f'{category}/')], int)
