"""What earlier runs of `predict` have left in a folder: what can be kept, and what is whose.

Of pictures it is known that they are of a run by the names in its lines, and by the names that an
unfinished run has noted before it drew anything: a picture is removed if an image of these names
may have it. Any other file below masks/ and overlays/ is someone else's, and the folder refused.
"""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting import overlays
from patch_svdd_jax.reporting.prediction_lines import (
  EVENT,
  LINES,
  PAGE,
  TABLE,
  UNFINISHED,
  Failure,
  parse,
)
from patch_svdd_jax.reporting.prediction_overlays import PLACES
from patch_svdd_jax.system import files
from patch_svdd_jax.system.digest_cache import digest_files

BEGUN = 'begun'
ADVICE = '--restart begins afresh, or give another --output'
_MOST_NAMED = 3


class Kept(NamedTuple):
  """A line of an unfinished run: the digest of the image's file, and the verdict."""

  digest: str
  alarm: bool


class Picture(NamedTuple):
  """A file below one of PLACES, and its path below that."""

  place: pathlib.Path
  below: pathlib.PurePosixPath


class Earlier(NamedTuple):
  """The results of earlier runs in a folder.

  Attributes:
    made_with: what an unfinished run was made with; None where there is no such run.
    lines: its whole lines of images that could be read, by their names, up to one that is garbled.
    names: of all images that any run here may have drawn pictures of.
    pictures: the files that may be these pictures.
  """

  made_with: Any
  lines: dict[str, Kept]
  names: set[str]
  pictures: list[Picture]


def look(folder: pathlib.Path) -> Earlier:
  """Returns what is there.

  Raises:
    UserError: something has one of our names, and is not ours.
  """
  names: set[str] = set()
  if (finished := folder / LINES).exists():
    names |= _finished(finished)
  made_with, lines = None, {}
  if (unfinished := folder / UNFINISHED).exists():
    with unfinished.open('rb') as file:
      first, whole = file.readline(), True
      if first.endswith(b'\n'):
        made_with = _json(first) or {}
      for line in file:
        found = parse(line) if line.endswith(b'\n') else None
        begun = None if found else _begun(line)
        names |= {found.name} if found else set(begun or ())
        whole = whole and bool(found or begun is not None)
        if whole and found and not isinstance(found, Failure):
          lines[found.name] = Kept(found.digest, bool(found.alarm))
  elif not finished.exists():
    for name in (TABLE, PAGE):
      if (folder / name).exists():
        raise UserError(_someone_elses(folder / name))
  return Earlier(made_with, lines, names, _pictures(folder, names))


def _finished(path: pathlib.Path) -> set[str]:
  names = set[str]()
  with path.open('rb') as file:
    for line in file:
      found = parse(line)
      if found is None or (not names and EVENT in json.loads(line)):
        raise UserError(_someone_elses(path))
      names.add(found.name)
  return names


def _someone_elses(path: pathlib.Path) -> str:
  return f'{path} is not of a prediction there: move it, or give another --output'


def _json(line: bytes) -> Any:
  try:
    return json.loads(line)
  except ValueError:
    return None


def _begun(line: bytes) -> list[str] | None:
  """Returns the names that an unfinished run has noted before it drew pictures."""
  found = _json(line)
  names = found.get(BEGUN) if isinstance(found, dict) else None
  return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _pictures(folder: pathlib.Path, names: set[str]) -> list[Picture]:
  """Returns the pictures that images of these names may have.

  Raises:
    UserError: there are others, but for hidden files, which desktops leave.
  """
  there = [
    Picture(place, pathlib.PurePosixPath(pathlib.Path(parent, name).relative_to(place)))
    for place in [folder / each for each in PLACES]
    for parent, _, found in os.walk(place)
    for name in found
  ]
  ours = set(itertools.chain.from_iterable(map(_paths, names if there else ())))
  for picture in there:
    if picture.below not in ours and not picture.below.name.startswith('.'):
      raise UserError(_someone_elses(picture.place / picture.below))
  return [picture for picture in there if picture.below in ours]


def _paths(name: str) -> Iterator[pathlib.PurePosixPath]:
  """Yields where the picture of an image may lie, also one that was not finished."""
  # A line whose disk has failed may have any name.
  with contextlib.suppress(ValueError):
    for path in overlays.possible_paths(name):
      yield path
      yield path.with_name(files.fitting(path.name, files.UNFINISHED))


def check_same(
  folder: pathlib.Path, earlier: Earlier, made_with: Mapping[str, Any], sources: Sequence[Source]
) -> None:
  """Refuses to go on with an unfinished run of something else.

  Args:
    folder: of the results.
    earlier: what is there.
    made_with: what lines depend on besides the images, by what it is called.
    sources: all images that are asked for.

  Raises:
    UserError: says what differs.
  """
  if other := _other_settings(earlier.made_with, made_with):
    raise UserError(f'{folder} holds unfinished results of {", ".join(other)}: {ADVICE}')
  paths = {source.name: source.path for source in sources}
  there = [name for name in earlier.lines if name in paths]
  found = digest_files([paths[name] for name in there])
  changes = {
    'removed': [name for name in earlier.lines if name not in paths],
    'replaced': [
      name
      for name, digest in zip(there, found, strict=True)
      if digest != earlier.lines[name].digest
    ],
  }
  said = [f'{len(names):,} {what} ({_listed(names)})' for what, names in changes.items() if names]
  if said:
    raise UserError(
      f'{folder} holds unfinished results of other images, {" and ".join(said)}: {ADVICE}'
    )


def _other_settings(before: Any, now: Mapping[str, Any]) -> list[str]:
  if not isinstance(before, dict) or before.keys() != now.keys():
    return ['another version']
  return [
    f'another {key}' + (f' ({before[key]}, now {now[key]})' if _is_short(before[key]) else '')
    for key in now
    if before[key] != now[key]
  ]


def _is_short(value: Any) -> bool:
  return len(str(value)) < 32  # a digest tells a reader nothing


def _listed(names: Sequence[str]) -> str:
  more = len(names) - _MOST_NAMED
  return ', '.join(names[:_MOST_NAMED]) + (f' and {more:,} more' if more > 0 else '')


def remove_others(folder: pathlib.Path, earlier: Earlier, kept: set[pathlib.PurePosixPath]) -> None:
  """Removes what earlier runs have left under its final name, and their pictures.

  Args:
    folder: of the results.
    earlier: what is there.
    kept: pictures to keep, by their paths below each of PLACES.
  """
  for name in (PAGE, TABLE, LINES):
    (folder / name).unlink(missing_ok=True)
  for place, below in earlier.pictures:
    if below not in kept:
      (place / below).unlink()
      _remove_empty((place / below).parent, place)


def _remove_empty(folder: pathlib.Path, last: pathlib.Path) -> None:
  """Removes a folder and those above it, up to the last, as far as they are empty."""
  try:
    folder.rmdir()
  except OSError:
    return
  if folder != last:
    _remove_empty(folder.parent, last)
