"""Reads what `eval` or `baselines` has measured of a run, image by image, for comparisons."""

import itertools
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from patch_svdd_jax.data.layout import GOOD
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.system import npz
from patch_svdd_jax.system.working_copy import shown

# The one category of a run that has no others.
ALONE = ''
# Images that are named where test images differ.
MOST_NAMED = 3


class MeasuredImage(NamedTuple):
  """A test image: its kind of defect, the digest of its files, and what it scored; NaN: unknown."""

  defect: str
  digest: str
  score: float
  aupimo: float

  @property
  def anomalous(self) -> bool:
    """Returns whether it has a defect."""
    return self.defect != GOOD


class MeasuredCategory(NamedTuple):
  """The metrics of the main map, of TITLES, NaN where undefined, and the test images by name."""

  figures: Mapping[str, float]
  images: Mapping[str, MeasuredImage]


class MeasuredRun(NamedTuple):
  """A run that was measured.

  Attributes:
    place: its folder, as its user knows it.
    main_map: the map that its figures and scores are of, by name; of several categories, all.
    sizes: (height, width) of the maps; none where they were removed.
    categories: by name; one alone is called ALONE.
  """

  place: str
  main_map: str
  sizes: frozenset[tuple[int, ...]]
  categories: Mapping[str, MeasuredCategory]


def read(workdir: pathlib.Path, folders: Mapping[str, pathlib.Path]) -> MeasuredRun:
  """Returns the run of a workdir.

  Args:
    workdir: of the run.
    folders: what was measured of it, by category: the workdir itself, of ALONE, or others.

  Raises:
    UserError: something was not measured, or not by this version.
  """
  categories: dict[str, MeasuredCategory] = {}
  maps: dict[str, None] = {}  # a set that keeps its order
  sizes: set[tuple[int, ...]] = set()
  for category, folder in folders.items():
    contents = _read_metrics(folder)
    main_map = contents['main_map']
    maps[main_map] = None
    sizes |= _map_sizes(folder / 'eval' / 'maps.npz', main_map)
    categories |= _categories(category, contents)
  if not categories:
    raise UserError(f'{workdir} has no category that was measured')
  return MeasuredRun(shown(workdir), ', '.join(maps), frozenset(sizes), categories)


def _read_metrics(folder: pathlib.Path) -> dict[str, Any]:
  path, command = folder / 'eval' / 'metrics.json', f'eval --workdir {folder}'
  if not path.exists() and (folder / 'metrics.json').exists():
    path, command = folder / 'metrics.json', f'baselines --workdir {folder.parent} --restart'
  again = f'run `patch-svdd {command}`'
  try:
    contents: dict[str, Any] = json.loads(path.read_bytes())
    if 'images' not in contents:
      raise UserError(f'{path} does not say what each image scored, as older ones do not: {again}')
    missing = {'main_map', 'maps'} - contents.keys()
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(f'{folder} was not measured{_measured_below(folder)}: {again}') from error
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'{path} is damaged ({error}): {again} again') from error
  if missing:
    raise UserError(f'{path} is damaged: {again} again')
  return contents


def _measured_below(folder: pathlib.Path) -> str:
  """Returns which folders in one were measured, in words."""
  found = sorted(
    path.parent.parent.relative_to(folder).as_posix()
    for pattern in ('*', '*/*')
    for path in folder.glob(f'{pattern}/eval/metrics.json')
  )
  more = ', ...' if len(found) > MOST_NAMED else ''
  return f', but in it {", ".join(found[:MOST_NAMED])}{more}' if found else ''


def _map_sizes(path: pathlib.Path, name: str) -> set[tuple[int, ...]]:
  """Returns the size of the maps, if they are there."""
  try:
    return {npz.shape(path, name)[1:]}
  except (OSError, KeyError, ValueError, zipfile.BadZipFile):
    return set()


def _categories(category: str, contents: Mapping[str, Any]) -> dict[str, MeasuredCategory]:
  """Returns the category of a metrics.json, or those that one detector was measured on."""
  main_map = contents['main_map']
  parts = contents.get('per_category', {}).get(main_map)
  images = {name: _image(each) for name, each in contents['images'].items()}
  if not parts:
    return {category: MeasuredCategory(_figures(contents['maps'][main_map]), images)}
  found = {}
  for name, figures in parts.items():
    # As `data.categories.combine` has named them.
    own = {k.removeprefix(f'{name}/'): v for k, v in images.items() if k.startswith(f'{name}/')}
    own = {k: v._replace(defect=v.defect.removeprefix(f'{name}/')) for k, v in own.items()}
    found[name] = MeasuredCategory(_figures(figures), own)
  return found


def _figures(figures: Mapping[str, float | None]) -> dict[str, float]:
  return {metric: _number(figures.get(metric)) for metric in TITLES}


def _image(entry: Mapping[str, Any]) -> MeasuredImage:
  return MeasuredImage(
    entry['defect'], entry['digest'], _number(entry['score']), _number(entry['aupimo'])
  )


def _number(value: float | None) -> float:
  return float('nan') if value is None else value


def check_comparable(runs: Sequence[MeasuredRun]) -> None:
  """Checks that no run is named twice and that all were measured on the first one's images.

  Raises:
    UserError: says which.
  """
  first, places = runs[0], [os.path.realpath(run.place) for run in runs]
  for run, place in zip(runs, places, strict=True):
    if places.count(place) > 1:
      raise UserError(f'{run.place} is named twice: name other runs to compare it with')
    if differing := _difference(_identities(first), _identities(run)):
      raise UserError(
        f'{run.place} was measured on other test images than {first.place}: {differing}; run '
        '`patch-svdd eval` for both on the same data set'
      )


def _identities(run: MeasuredRun) -> dict[str, tuple[str, str]]:
  """Returns what tells images from others, by name: their files and their kind of defect."""
  return {
    f'{category}/{name}'.lstrip('/'): (image.digest, image.defect)
    for category, each in run.categories.items()
    for name, image in each.images.items()
  }


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
  """Returns which images differ, in words; '' where none does."""
  found = {
    'others': [name for name in one if other.get(name, one[name]) != one[name]],
    'more': [name for name in other if name not in one],
    'missing': [name for name in one if name not in other],
  }
  return ', '.join(
    f'{len(names)} {kind} ({", ".join(names[:MOST_NAMED])}{", ..." * (len(names) > MOST_NAMED)})'
    for kind, names in found.items()
    if names
  )


def short_names(places: Sequence[str]) -> list[str]:
  """Returns what tells each path from the others: without the parts that all begin or end with."""
  parts = [place.rstrip('/').split('/') for place in places]
  start = _common(parts)
  end = _common([each[start:][::-1] for each in parts])
  short = ['/'.join(each[start : len(each) - end]) for each in parts]
  return short if all(short) else list(places)


def _common(parts: Sequence[Sequence[str]]) -> int:
  """Returns how many parts all begin with."""
  at_each_place = zip(*parts, strict=False)
  return sum(1 for _ in itertools.takewhile(lambda each: len(set(each)) == 1, at_each_place))
