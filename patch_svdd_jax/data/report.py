"""The data report: what a data set consists of, what of it is read, and what is wrong with it.

It has two parts. What folders show (names, suffixes, links) is looked up each time; what only the
content of files shows (sizes, depths, damage, what masks mark) is kept with the prepared data.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from patch_svdd_jax.errors import UserError, one_line

FILE = 'data_report.json'

# Cases that one line names, and lines of the short form.
SHOWN = 3
SHOWN_LINES = 5
# Files that an error names.
SHOWN_UNUSABLE = 10

# 'wrong': figures or verdicts are not what they seem; 'mind': they may be; 'note': as it should be.
Weight = Literal['wrong', 'mind', 'note']


class Kind(NamedTuple):
  """A kind of finding: its weight, its subject, and the consequence or advice."""

  weight: Weight
  title: str
  advice: str


KINDS = {
  'no_training_images': Kind(
    'wrong', 'folders without training images', 'put normal images into train/good'
  ),
  'line_unusable': Kind(
    'wrong', 'lines of the list that cannot be used', 'nothing is read: mend or remove them'
  ),
  'training_file_unusable': Kind(
    'wrong', 'training images that cannot be used', 'nothing is trained: mend or remove them'
  ),
  'test_file_unusable': Kind(
    'wrong',
    'test images that cannot be used',
    'train leaves them out, eval refuses: mend or remove them',
  ),
  'mask_inverted': Kind(
    'wrong',
    'masks that look inverted',
    'nearly all is marked, or half of it and the border; taken as they are: what is anomalous '
    'must be white',
  ),
  'mask_empty': Kind(
    'wrong',
    'masks of defective images that mark nothing',
    'such an image counts as one without a mask',
  ),
  'mask_empty_as_published': Kind(
    'note',
    'masks of defective images that mark nothing, as they were published',
    'all their pixels count as normal',
  ),
  'mask_full': Kind('wrong', 'masks that mark every pixel', 'taken as they are: check them'),
  'mask_grey': Kind(
    'wrong',
    'masks of many grey levels, in part faint',
    'each pixel that is not black counts as anomalous: save them with two levels',
  ),
  'mask_shared': Kind(
    'wrong', 'masks that several images share', 'taken for each of them: give each its own'
  ),
  'mask_not_read': Kind(
    'wrong', 'masks of formats that are not read, left out', 'convert them to PNG or NPY'
  ),
  'mask_without_image': Kind(
    'wrong',
    'masks that belong to no test image, left out',
    "a mask bears its image's name, with _mask or without, in the folder of its type",
  ),
  'masks_elsewhere': Kind(
    'wrong', 'further folders of masks, not read', 'move their masks into ground_truth'
  ),
  'format_not_read': Kind(
    'wrong', 'images of formats that are not read, left out', 'convert them to PNG'
  ),
  'wrong_level': Kind(
    'wrong',
    'images at the wrong level, left out',
    'they belong into train/good, test/TYPE and ground_truth/TYPE',
  ),
  'too_deep': Kind(
    'wrong',
    'images deeper than the layout, left out',
    'they belong into train/good, test/TYPE and ground_truth/TYPE',
  ),
  'not_taken': Kind(
    'wrong',
    'images that belong to no folder of the set, left out',
    'move them right into its folders, or name them in a list (CSV)',
  ),
  'linked_folder': Kind(
    'wrong', 'linked folders deeper than the layout, not followed', 'link train/good or test/TYPE'
  ),
  'no_file': Kind('wrong', 'links that lead nowhere and other non-files, left out', 'remove them'),
  'mask_tiny': Kind('mind', 'masks of a handful of pixels', 'taken as they are: check them'),
  'mask_vanishes': Kind(
    'mind',
    'masks of which nothing is left at config.data.image_size',
    'all pixels of these images count as normal: take a larger size',
  ),
  'some_unmarked': Kind(
    'mind',
    'defective images without a mask where others of their type have one',
    'they count for image figures, not for pixel figures',
  ),
  'not_trained_on': Kind(
    'mind', 'folders in train that are not trained on', 'only those that mean good are'
  ),
  'resembles_good': Kind(
    'mind',
    'types of defect whose name resembles good',
    'taken for defects: call it good if it is of normal images',
  ),
  'not_official': Kind('mind', 'differences from the official data', 'results will not compare'),
  'no_images': Kind('mind', 'folders of images without an image', 'check them'),
  'depth_differs': Kind(
    'mind', 'folders of test images of another kind than the training images', 'check them'
  ),
  'format_tells': Kind(
    'mind',
    'formats of good and defective test images that differ',
    'scores may tell the formats apart: save all in one',
  ),
  'folder_beside': Kind(
    'mind', 'folders beside train and test that are not read', 'check that they are not meant'
  ),
  'columns_not_read': Kind(
    'mind', 'columns of the list that are not read', 'only path, label, mask and split are'
  ),
  'good_by_another_name': Kind('note', 'folders whose name means good', 'read as good'),
  'masks_by_another_name': Kind('note', 'folders that stand for ground_truth', 'read as it'),
  'unmarked': Kind(
    'note',
    'defective images without a mask',
    'they count for image figures, not for pixel figures',
  ),
  'masks_joined': Kind('note', 'images with several masks in a folder', 'their union counts'),
  'mask_labels': Kind(
    'note', 'masks of dark labels, such as 0 and 1', 'each pixel but 0 counts as anomalous'
  ),
  'mask_jpeg': Kind('note', 'masks in JPEG', 'what is brighter than half counts as anomalous'),
  'hidden': Kind('note', 'hidden files and folders', 'passed over'),
  'region': Kind(
    'note',
    'regions of interest',
    'no images: config.data.region=region.png, or roi, says that they are where images are judged',
  ),
  'other_files': Kind('note', 'other files', 'passed over'),
  'unused': Kind('note', 'files that this data set does not use', 'passed over'),
}


class Case(NamedTuple):
  """One file, or several of a folder; what is to be said of it besides its kind."""

  name: str
  detail: str = ''
  number: int = 1

  def text(self) -> str:
    """Returns the name, and what else there is to say."""
    counted = f'{self.number} x ' if self.number > 1 else ''
    return one_line(f'{counted}{self.name}' + (f' ({self.detail})' if self.detail else ''))


class Finding(NamedTuple):
  """All cases of a kind."""

  kind: str
  cases: tuple[Case, ...]

  @property
  def weight(self) -> Weight:
    """Returns how much it weighs."""
    return KINDS[self.kind].weight

  @property
  def number(self) -> int:
    """Returns how many files or folders it is about."""
    return sum(case.number for case in self.cases)

  def text(self, shown: int = SHOWN) -> str:
    """Returns one line that names so many cases at most."""
    kind = KINDS[self.kind]
    named = _listed(self, shown)
    more = ', ...' if len(self.cases) > shown else ''
    return f'{kind.title}: {self.number} ({named}{more}); {kind.advice}'


@dataclasses.dataclass(frozen=True)
class Group:
  """The images of a folder that are of one type.

  Attributes:
    split: 'train', 'validation' or 'test'.
    folder: below that of the data set.
    defect: 'good' for normal ones.
    images: how many could be used.
    masks: how many of them have a mask that marks something.
    formats: how many are of each format, such as 'PNG 8-bit RGB'.
    sizes: how many are of each size, as 'WIDTH x HEIGHT'.
    turned: how many are turned by their EXIF orientation.
  """

  split: str
  folder: str
  defect: str
  images: int
  masks: int
  formats: Mapping[str, int]
  sizes: Mapping[str, int]
  turned: int


@dataclasses.dataclass(frozen=True)
class DataReport:
  """The data report.

  Attributes:
    groups: the images, by folder.
    of_files: what the content of files shows.
    of_folders: what names show.
    form: what a set of one's own was recognised as, in words; '' of others.
  """

  groups: tuple[Group, ...] = ()
  of_files: tuple[Finding, ...] = ()
  of_folders: tuple[Finding, ...] = ()
  form: str = ''

  @property
  def findings(self) -> list[Finding]:
    """All, the gravest first."""
    order = {name: number for number, name in enumerate(KINDS)}
    return sorted((*self.of_folders, *self.of_files), key=lambda each: order[each.kind])

  def of_weight(self, *weights: Weight) -> list[Finding]:
    """Returns the findings of these weights, the gravest first."""
    return [finding for finding in self.findings if finding.weight in weights]

  def cases(self, kind: str) -> tuple[Case, ...]:
    """Returns the cases of a kind."""
    return tuple(case for each in self.findings if each.kind == kind for case in each.cases)

  def summary(self) -> str:
    """Returns one line about the images: how many there are, of which formats and sizes."""
    parts = []
    for split in ('train', 'validation', 'test'):
      groups = [group for group in self.groups if group.split == split]
      if groups:
        parts.append(f'{split} {sum(group.images for group in groups):,} {_split_facts(groups)}')
    turned = sum(group.turned for group in self.groups)
    if turned:
      parts.append(f'{turned:,} turned by EXIF')
    passed_over = sum(each.number for each in self.of_folders if each.kind in PASSED_OVER)
    if passed_over:
      parts.append(f'not read: {passed_over:,} (files, or whole folders)')
    return '; '.join(parts)

  def lines(self) -> list[str]:
    """Returns the short form of what is wrong or to be minded, a few lines at most."""
    found = [each.text() for each in self.of_weight('wrong', 'mind')]
    if len(found) <= SHOWN_LINES:
      return found
    others = self.of_weight('wrong', 'mind')[SHOWN_LINES - 1 :]
    counts = ', '.join(f'{KINDS[each.kind].title}: {each.number}' for each in others)
    return [*found[: SHOWN_LINES - 1], f'{counts}; `patch-svdd data` names them all']

  def to_json(self) -> dict[str, Any]:
    """Returns plain values."""
    return {
      'form': self.form,
      'groups': [dataclasses.asdict(group) for group in self.groups],
      'of_files': [_finding_to_json(each) for each in self.of_files],
      'of_folders': [_finding_to_json(each) for each in self.of_folders],
    }

  @classmethod
  def from_json(cls, contents: Mapping[str, Any]) -> 'DataReport':
    """Returns what `to_json` was made of."""
    return cls(
      groups=tuple(Group(**group) for group in contents['groups']),
      of_files=tuple(_finding_from_json(each) for each in contents['of_files']),
      of_folders=tuple(_finding_from_json(each) for each in contents['of_folders']),
      form=contents.get('form', ''),  # which earlier versions did not write
    )


# Kinds whose details are sentences that name the file, and kinds whose files are not read.
UNUSABLE = (
  *('line_unusable', 'no_training_images', 'training_file_unusable', 'test_file_unusable'),
)
PASSED_OVER = (
  'not_taken',
  *('wrong_level', 'too_deep', 'linked_folder', 'format_not_read', 'no_file', 'mask_not_read'),
  *('mask_without_image', 'masks_elsewhere', 'not_trained_on', 'folder_beside', 'hidden'),
  *('other_files', 'unused'),
)


def _split_facts(groups: Sequence[Group]) -> str:
  normal = sum(group.images for group in groups if group.defect == 'good')
  defective = sum(group.images for group in groups) - normal
  masks = sum(group.masks for group in groups)
  facts = [_counted(group.formats for group in groups), _counted(group.sizes for group in groups)]
  if groups[0].split == 'test':
    facts = [f'{normal:,} good', f'{defective:,} defective, {masks:,} with a mask', *facts]
  return f'({", ".join(fact for fact in facts if fact)})'


def _counted(parts: Iterable[Mapping[str, int]]) -> str:
  """Returns the two most frequent values, and how many others there are."""
  counts: collections.Counter[str] = collections.Counter()
  for part in parts:
    counts.update(part)
  frequent = [value for value, _ in counts.most_common(2)]
  more = f' and {len(counts) - 2} others' if len(counts) > 2 else ''
  return ' / '.join(frequent) + more


def _listed(finding: Finding, shown: int) -> str:
  if finding.kind in UNUSABLE:
    return ' | '.join(one_line(case.detail) for case in finding.cases[:shown])
  return ', '.join(case.text() for case in finding.cases[:shown])


def _finding_to_json(finding: Finding) -> dict[str, Any]:
  return {
    'kind': finding.kind,
    'weight': finding.weight,
    'count': finding.number,
    'text': finding.text(),
    'cases': [case._asdict() for case in finding.cases],
  }


def _finding_from_json(contents: Mapping[str, Any]) -> Finding:
  return Finding(contents['kind'], tuple(Case(**case) for case in contents['cases']))


def findings(cases: Iterable[tuple[str, Case]]) -> tuple[Finding, ...]:
  """Returns the cases by their kinds; those of a kind stay in their order."""
  by_kind: dict[str, list[Case]] = collections.defaultdict(list)
  for kind, case in cases:
    by_kind[kind].append(case)
  return tuple(Finding(kind, tuple(each)) for kind, each in by_kind.items())


def combine(reports: Mapping[str, DataReport]) -> DataReport:
  """Returns one report of several categories, whose names begin with that of their category."""
  groups = tuple(
    dataclasses.replace(group, folder=f'{category}/{group.folder}')
    for category, report in reports.items()
    for group in report.groups
  )

  def within(part: str) -> Iterator[tuple[str, Case]]:
    for category, report in reports.items():
      for finding in getattr(report, part):
        for case in finding.cases:
          yield finding.kind, case._replace(name=f'{category}/{case.name}')

  forms = dict.fromkeys(each.form for each in reports.values())
  return DataReport(
    groups,
    findings(within('of_files')),
    findings(within('of_folders')),
    form='; '.join(filter(None, forms)),
  )


class UnusableError(UserError):
  """Nothing can be trained on this data; all that is wrong with it is in the report."""

  def __init__(self, place: str, report: DataReport):
    super().__init__(f'{place}: {unusable(report)}')
    self.report = report


def unusable(report: DataReport) -> str:
  """Returns one line about all files that cannot be used."""
  parts = []
  for kind in UNUSABLE:
    if cases := report.cases(kind):
      title = '' if len(cases) == 1 else f'{len(cases)} {KINDS[kind].title}: '
      more = f' | and {len(cases) - SHOWN_UNUSABLE} more (`patch-svdd data` names them all)'
      listed = _listed(Finding(kind, cases), SHOWN_UNUSABLE)
      parts.append(title + listed + (more if len(cases) > SHOWN_UNUSABLE else ''))
  return ' | '.join(parts)
