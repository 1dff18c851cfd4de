"""The private test splits of MVTec AD 2: images without labels, which MVTec's server has.

  <category>/test_private/000_regular.png, 001_regular.png, ...
  <category>/test_private_mixed/000_mixed.png, 001_mixed.png, ...

Names and numbers are those that MVTec's code for submissions asks of maps (`utils.py` of
MVTecAD2_public_code_utils).
"""

import collections
import pathlib
from collections.abc import Sequence

from patch_svdd_jax.data import layout
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError

# Each split, and how the names of its images end.
SPLITS = {'test_private': 'regular', 'test_private_mixed': 'mixed'}
# Images of a category in each of the two.
COUNTS = {
  'can': 321,
  'fabric': 314,
  'fruit_jelly': 255,
  'rice': 277,
  'sheet_metal': 142,
  'vial': 276,
  'wallplugs': 232,
  'walnuts': 228,
}
_MOST_NAMED = 4


def stems(category: str, split: str) -> list[str]:
  """Returns the official names of the images of a split, without suffix."""
  return [f'{number:03}_{SPLITS[split]}' for number in range(COUNTS[category])]


def find(root: pathlib.Path, category: str) -> list[Source]:
  """Lists the images of both splits, named as 'test_private/000_regular.png'.

  Args:
    root: the folder that the official download is extracted to.
    category: of COUNTS.

  Raises:
    UserError: the folder is not there, or its images are not the official ones.
  """
  if root.is_file():
    raise UserError(f'{root}: is a file; extract it and name the folder that holds the categories')
  found = []
  for split in SPLITS:
    folder = root / category / split
    paths = layout.image_files(folder)
    if wrong := differences([path.stem for path in paths], stems(category, split)):
      raise UserError(f'{folder}: {wrong}; take the images of the official download')
    found += [Source(f'{split}/{path.name}', path) for path in paths]
  return found


def differences(found: Sequence[str], expected: Sequence[str]) -> str:
  """Returns what is missing of some names and what should not be there, in words; '' if nothing."""
  have, want = collections.Counter(found), collections.Counter(expected)
  return ', '.join(
    f'{names.total()} {what} ({_listed(sorted(names))})'
    for names, what in ((want - have, 'missing'), (have - want, 'too many'))
    if names
  )


def _listed(names: Sequence[str]) -> str:
  return ', '.join(names[:_MOST_NAMED]) + (', ...' if len(names) > _MOST_NAMED else '')
