"""What the content of a data set's files shows, collected while they are read: half the report."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from patch_svdd_jax.data import images, layout, report
from patch_svdd_jax.data.report import Case, DataReport, Group


class Examined(NamedTuple):
  """Findings of an item's files: facts of the image, whether a mask marks something, oddities."""

  facts: images.Facts
  is_marked: bool
  odd: tuple[tuple[str, Case], ...]


class Examination:
  """Collects what is found of each item.

  Args:
    found: the layout that the items are of.

  Attributes:
    odd: what else is to be reported.
  """

  def __init__(self, found: layout.Layout):
    self._found = found
    self._examined: dict[tuple[str, str, str], list[tuple[layout.Item, Examined]]] = {}
    self.odd: list[tuple[str, Case]] = []

  def add(self, split: str, item: layout.Item, examined: Examined) -> None:
    """Takes an item that can be used."""
    place = split, pathlib.PurePosixPath(item.name).parent.as_posix(), item.defect
    self._examined.setdefault(place, []).append((item, examined))

  def fail(self, split: str, item: layout.Item, reason: str) -> None:
    """Takes an item that cannot be used, and why, in words that name the file.

    Paths become relative to the data set: what is kept may be read of a copy elsewhere.
    """
    path = os.fspath(item.image)
    if path.endswith(item.name):
      reason = reason.replace(path.removesuffix(item.name), '')
    kind = 'test_file_unusable' if split == 'test' else 'training_file_unusable'
    self.odd.append((kind, Case(item.name, reason)))

  def report(self) -> DataReport:
    """Returns the report of all that was taken."""
    groups = tuple(
      _group(*place, [each for _, each in found]) for place, found in self._examined.items()
    )
    odd = [
      case for found in self._examined.values() for _, examined in found for case in examined.odd
    ]
    odd += [*self._unmarked(), *_differences(groups)]
    of_files = report.findings([*self.odd, *odd])
    return DataReport(groups, of_files, self._found.findings, self._found.form)

  def _unmarked(self) -> Iterator[tuple[str, Case]]:
    """Yields the defective test images that have no mask."""
    for (split, folder, defect), found in self._examined.items():
      without = [item.name for item, _ in found if not item.masks]
      if split != 'test' or defect == layout.GOOD or not without:
        continue
      if len(without) < len(found):
        yield from (('some_unmarked', Case(name)) for name in without)
      else:
        yield 'unmarked', Case(folder, number=len(without))


def _group(split: str, folder: str, defect: str, found: list[Examined]) -> Group:
  def counts(values: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(values).most_common())

  facts = [each.facts for each in found]
  return Group(
    split=split,
    folder=folder,
    defect=defect,
    images=len(found),
    masks=sum(each.is_marked for each in found),
    formats=counts(each.format for each in facts),
    sizes=counts(f'{each.size[0]} x {each.size[1]}' for each in facts),
    turned=sum(each.turned for each in facts),
  )


def _differences(groups: Iterable[Group]) -> Iterator[tuple[str, Case]]:
  """Yields where test images are stored otherwise than normal ones."""
  groups = list(groups)
  trained = {_pixels(each) for group in groups if group.split == 'train' for each in group.formats}
  tested = [group for group in groups if group.split == 'test']
  for group in tested:
    others = [each for each in group.formats if _pixels(each) not in trained]
    if others and trained:
      yield 'depth_differs', Case(group.folder, ', '.join(others), group.images)
  good, bad = (
    {
      each.split()[0]
      for group in tested
      if (group.defect == layout.GOOD) == is_good
      for each in group.formats
    }
    for is_good in (True, False)
  )
  if good and bad and not good & bad:
    yield (
      'format_tells',
      Case(f'good {", ".join(sorted(good))}, defective {", ".join(sorted(bad))}'),
    )


def _pixels(name: str) -> str:
  """Returns bits and channels of 'PNG 8-bit RGB'."""
  return name.partition(' ')[2]
