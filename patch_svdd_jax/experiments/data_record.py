"""The data that a run or an experiment began with: it goes on with no others.

A folder keeps, by image, the digests of `Split.digests` in data.json. So a run knows its data again
wherever they lie and however they are prepared, and can say which images are others.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax import data
from patch_svdd_jax.data import Dataset, Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digests, distributed, files

FILE = 'data.json'

# What an encoder learns from, and all that a figure depends on.
TRAINING = ('train', 'held_out')
EVERYTHING = (*TRAINING, 'test')

# The key of a run's own data; an experiment may have several data sets.
RUN = 'run'
# Of config.data, what chooses the images: in an experiment, a key each.
CHOOSING = (
  'name',
  'category',
  'normal_images',
  'held_out',
  'contamination',
  'contamination_overlap',
)

# Beside a split, the digests of its images' regions of interest, where they have some.
REGIONS = '{} regions'

# Digests by name of image, by split.
Contents = Mapping[str, Mapping[str, str]]


def contents(dataset: Dataset, splits: Sequence[str]) -> Contents:
  """Returns the digests of some splits' images, and of their regions."""
  found = {}
  for split in splits:
    part = getattr(dataset, split)
    found[split] = dict(zip(part.names, part.digests, strict=True))
    if part.regions is not None:
      found[REGIONS.format(split)] = region_digests(part)
  return found


def region_digests(split: Split) -> dict[str, str]:
  """Returns the digests of the regions, at the images' size, by what they are of."""

  def digest(region: np.ndarray) -> str:
    return digests.digest_parts(str(region.shape).encode(), np.packbits(region).tobytes())

  if split.fixed_region is not None:
    return {'region of all images': digest(split.fixed_region)}
  named = zip(split.names, split.regions, strict=True) if split.regions is not None else ()
  return {f'region of {name}': digest(region) for name, region in named}


def key_of(config: ml_collections.ConfigDict, name: str = '') -> str:
  """Returns the key by which an experiment keeps the images that `config.data` chooses.

  Args:
    config: `config.data`.
    name: of the data set, in an experiment on several that may lie in different folders.
  """
  region = (config.region, config.region_share) if config.region else ()
  return json.dumps([*filter(None, [name]), *(config[key] for key in CHOOSING), *region])


def read(folder: pathlib.Path) -> dict[str, Contents]:
  """Returns what a folder keeps, by key; nothing where it began before there was such a file.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / FILE
  try:
    kept = json.loads(path.read_bytes())
    if not all(isinstance(part, dict) for each in kept.values() for part in each.values()):
      raise TypeError
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} is damaged: put a copy in its place, or begin anew (--restart)'
    ) from error
  found: dict[str, Contents] = kept
  return found


def check(folder: pathlib.Path, key: str, found: Contents) -> None:
  """Refuses other data than those that a folder keeps.

  Raises:
    UserError: says which images are others.
  """
  if changed := difference(read(folder).get(key), found):
    raise UserError(
      f'{folder} was begun with other data ({changed}): name another folder, or begin anew '
      '(--restart; in Python, restart=True)'
    )


def begin(folder: pathlib.Path, key: str, found: Contents) -> None:
  """Keeps what a folder's work reads where it begins; refuses other data where it goes on.

  Raises:
    UserError: says which images are others, or that processes read different ones.
  """
  if not distributed.agree(digests.digest_parts(json.dumps(found).encode())):
    raise UserError(
      'the processes read different data: put the same images below config.data.root on all hosts'
    )
  check(folder, key, found)
  if key not in read(folder):
    keep(folder, key, found)


def keep(folder: pathlib.Path, key: str, found: Contents) -> None:
  """Writes what was read into a folder, in place of what it kept under this key."""
  if distributed.is_first():
    files.write_json(folder / FILE, read(folder) | {key: found})


def begin_experiment(
  folder: pathlib.Path, config: ml_collections.ConfigDict, dataset: Dataset, name: str = ''
) -> None:
  """Keeps, or checks, all images of a data set; see `begin` and, for the arguments, `key_of`."""
  begin(folder, key_of(config, name), contents(dataset, EVERYTHING))


def keep_experiment(
  folder: pathlib.Path, config: ml_collections.ConfigDict, dataset: Dataset
) -> None:
  """Keeps all images of a data set that was measured anew; see `begin_experiment`."""
  keep(folder, key_of(config), contents(dataset, EVERYTHING))


def check_kept(folder: pathlib.Path, sets: Iterable[tuple[ml_collections.ConfigDict, str]]) -> None:
  """Loads and checks the data sets that an experiment has measured, before it goes on with others.

  Args:
    folder: of the experiment.
    sets: the arguments of `key_of`, `config.data` and a name, for each.

  Raises:
    UserError: says which images are others.
  """
  kept = read(folder)
  for key, config in {key_of(config, name): config for config, name in sets}.items():
    if key in kept:
      check(folder, key, contents(data.load(config), EVERYTHING))


def difference(before: Contents | None, after: Contents) -> str | None:
  """Returns how data differ from those before, in words; None where they do not.

  Splits that one of them lacks are not compared.
  """
  changes: dict[str, list[str]] = {'added': [], 'removed': [], 'replaced': []}
  before = before or {}
  common = [split for split in before if split in after and split in EVERYTHING]
  pairs = [(before[split], after[split]) for split in common]
  # Images that had no region may have got one, and the other way round.
  regions = map(REGIONS.format, common)
  pairs += [(before.get(each, {}), after.get(each, {})) for each in regions]
  for old, new in pairs:
    changes['added'] += [name for name in new if name not in old]
    changes['removed'] += [name for name in old if name not in new]
    changes['replaced'] += [name for name in new if old.get(name, new[name]) != new[name]]
  texts = [
    f'{len(names)} {word}: {names[0]}{", ..." if len(names) > 1 else ""}'
    for word, names in ((word, list(dict.fromkeys(each))) for word, each in changes.items())
    if names
  ]
  return '; '.join(texts) or None
