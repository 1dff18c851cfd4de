"""A set of images that a file lists: CSV with a header, or JSON lines with the same keys.

  path,label,mask,split
  images/1.png,good,,train
  images/2.png,scratch,masks/2.png,test

Its rules, which docs/datasets.md gives to users:
  - Paths are those of files on this machine, relative to the list's folder or absolute.
  - A label says that an image is normal (what means good as a folder's name, 0, false) or which
    defect it has; 1 and true are the defect 'abnormal'.
  - A mask may be left out. Its pixels are read as everywhere, see `masks`.
  - The split is train, test or validation; train and validation hold normal images only. Without
    the column all images are trained on, as long as all are normal.
  - The order of lines does not matter. All lines that cannot be used are named at once.
"""

import csv
import functools
import io
import json
import operator
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from patch_svdd_jax.data import images, layout, report
from patch_svdd_jax.data.folder_names import GOOD, means_good, resembles_good
from patch_svdd_jax.data.report import Case, DataReport, UnusableError
from patch_svdd_jax.errors import UserError

SUFFIXES = ('.csv', '.tsv', '.jsonl')
COLUMNS = ('path', 'label', 'mask', 'split')
# What an error shows of a list.
EXAMPLE = 'path,label,mask,split | a/1.png,good,,train | b/2.png,scratch,masks/2.png,test'
EXAMPLE_JSON = '{"path": "a/1.png", "label": "good", "split": "train"}'
# The type of a defect that has no name.
ABNORMAL = 'abnormal'

_DELIMITERS = {',': 'commas', ';': 'semicolons', '\t': 'tabs'}
_TRUTH = {'true': ABNORMAL, 'false': GOOD}
_SPLITS = {'train': 'train', 'test': 'test', 'validation': 'validation', 'val': 'validation'}


class Line(NamedTuple):
  """A line of a list: its number from 1, and the text of each column, '' where it is left out."""

  number: int
  path: str
  label: str
  mask: str
  split: str


def _line(number: int, cells: Mapping[str, str]) -> Line:
  return Line(number, *(cells.get(column, '') for column in COLUMNS))


class Contents(NamedTuple):
  """Contents of a list.

  Attributes:
    kind: of file, in words.
    columns: all there are.
    lines: those that can be read.
    problems: what cannot, and why, by the number of its line.
  """

  kind: str
  columns: Collection[str]
  lines: list[Line]
  problems: list[tuple[int, str]]


def is_list(place: pathlib.Path) -> bool:
  """Returns whether a path has the name of a list."""
  return place.suffix.lower() in SUFFIXES


def read(place: pathlib.Path) -> Contents:
  """Reads a list.

  Raises:
    UserError: it cannot be read as what its name says.
  """
  data = images.read_bytes(place)
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    number = data.count(b'\n', 0, error.start) + 1
    raise UserError(f'{place}: line {number} is not UTF-8; save the list as UTF-8') from error
  return _read_json(text) if place.suffix.lower() == '.jsonl' else _read_csv(text, place)


def _read_csv(text: str, place: pathlib.Path) -> Contents:
  delimiter, columns = _header(text, place)
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True, strict=True
  )
  lines, problems = [], []
  number = 1
  try:
    for cells in reader:
      if number > 1 and any(cells[len(columns) :]):
        text = f'has {len(cells)} cells, the header {len(columns)}: quote what holds the delimiter'
        problems.append((number, text))
      elif number > 1 and any(cells):
        lines.append(_line(number, dict(zip(columns, cells, strict=False))))
      number = reader.line_num + 1
  except csv.Error as error:
    raise UserError(f'{place}: line {number} cannot be read as CSV: {error}') from error
  return Contents(f'CSV with {_DELIMITERS[delimiter]}', columns, lines, problems)


def _header(text: str, place: pathlib.Path) -> tuple[str, list[str]]:
  """Returns the delimiter that makes a header of the first line, and the columns' names."""
  first = next(iter(text.splitlines()), '')
  for delimiter in _DELIMITERS:
    cells = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])
    columns = [cell.strip().casefold() for cell in cells]
    if {'path', 'label'} <= {*columns} and max(map(columns.count, COLUMNS)) == 1:
      return delimiter, columns
  raise UserError(
    f'{place}: line 1 does not name the columns, path and label among them, each once; write '
    f'lines such as {EXAMPLE}'
  )


def _read_json(text: str) -> Contents:
  lines, problems = [], []
  columns: dict[str, None] = {}
  for number, each in enumerate(text.split('\n'), 1):
    if not each.strip():
      continue
    try:
      value = json.loads(each)
    except ValueError:
      value = None
    if not isinstance(value, dict):
      problems.append((number, f'is no JSON object such as {EXAMPLE_JSON}'))
      continue
    found = {key.strip().casefold(): _plain(cell) for key, cell in value.items()}
    columns |= dict.fromkeys(found)
    wrong = [key for key in COLUMNS if found.get(key, '') is None]
    problems += [(number, f'has a {key} that is no text') for key in wrong]
    if not wrong:
      lines.append(_line(number, {key: cell or '' for key, cell in found.items()}))
  return Contents('JSON lines', columns, lines, problems)


def _plain(value: Any) -> str | None:
  """Returns a value of JSON as CSV would have it; None of what it has not."""
  if value is None:
    return ''
  if isinstance(value, str):
    return value
  return json.dumps(value) if isinstance(value, bool | int | float) else None


def paths(place: pathlib.Path) -> list[str]:
  """Returns the paths of all images and masks that a list in a bucket names.

  Raises:
    UserError: one is not that of a file beside the list or below.
  """
  lines = read(place).lines
  found = [(line.number, path) for line in lines for path in (line.path, line.mask) if path]
  for number, path in found:
    if (
      '://' in path
      or path.startswith('/')
      or '..' in pathlib.PurePath(os.path.normpath(path)).parts
    ):
      raise UserError(
        f'{place}: line {number} names {path}, which is not below {place.parent}: in a bucket, '
        'a list stands above all that it names; give paths relative to it'
      )
  return [path for _, path in found]


def scan(place: pathlib.Path) -> layout.Layout:
  """Finds the images and masks that a list names.

  Args:
    place: the list.

  Returns:
    The Layout, in an order that depends on what is listed alone. Names are paths relative to the
    folder of the list or, where some lie outside, to the folder that all have in common.

  Raises:
    UnusableError: lines cannot be used; names them all.
    UserError: the list is no such file, or says not what to train on.
  """
  contents = read(place)
  problems = [*contents.problems, *_problems(contents, place.parent)]
  problems.sort(key=operator.itemgetter(0))
  if problems:
    cases = (Case(f'line {number}', f'line {number} {text}') for number, text in problems)
    found = report.findings(('line_unusable', case) for case in cases)
    raise UnusableError(f'{place}', DataReport(of_folders=found))
  labels = {_label(line.label) or '' for line in contents.lines}
  if 'split' not in contents.columns and labels - {GOOD}:
    raise UserError(
      f'{place}: has defects, but no column split; add one, with train, test or validation in each '
      f'line: {EXAMPLE}'
    )
  items = _items(contents.lines, place.parent)
  if not items['train']:
    raise UserError(
      f'{place}: lists no image to train on; give normal ones the split train: {EXAMPLE}'
    )
  others = [each for each in contents.columns if each and each not in COLUMNS]
  odd = [
    *(('columns_not_read', Case(each)) for each in others),
    *(('resembles_good', Case(f'label {each}')) for each in sorted(labels) if resembles_good(each)),
    *layout.shared_masks(place.parent, items['test']),
  ]
  read_columns = ', '.join(each for each in COLUMNS if each in contents.columns)
  return layout.Layout(
    tuple(items['train']),
    tuple(items['test']),
    tuple(items['validation']),
    findings=report.findings(odd),
    form=f'read as a list of images ({contents.kind}: {read_columns})',
  )


def _problems(contents: Contents, folder: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields what is wrong with each line, by its number."""
  real = functools.cache(os.path.realpath)
  first: dict[tuple[str, str], int] = {}
  with_split = 'split' in contents.columns
  for line in contents.lines:
    path = folder / line.path
    if line.path and _is_file(path):
      earlier = first.setdefault((real(path.parent), path.name), line.number)
      if earlier != line.number:
        yield line.number, f'names {line.path} again, as line {earlier} does; keep one'
    yield from ((line.number, text) for text in _problems_of(line, folder, with_split))


def _is_file(path: pathlib.Path) -> bool:
  try:
    return path.is_file()
  except (OSError, ValueError):  # its name is too long, or none; a folder may not be entered
    return False


def _problems_of(line: Line, folder: pathlib.Path, with_split: bool) -> Iterator[str]:
  if not line.path:
    yield 'has no path'
  for column, path in (('path', line.path), ('mask', line.mask)):
    if path and not _is_file(folder / path):
      advice = '; write / for \\' if '\\' in path else ''
      yield f'has the {column} {path}, where no file is{advice}'
  label, split = _label(line.label), _split(line)
  if not label:
    given = f'label {line.label.strip()}' if line.label.strip() else 'empty label'
    yield f'has the {given}; write good, or the kind of defect'
  if with_split and not split:
    given = f'split {line.split.strip()}' if line.split.strip() else 'empty split'
    yield f'has the {given}; write train, test or validation'
  if label not in (None, GOOD) and split in ('train', 'validation'):
    yield f'puts a defect ({label}) into {split}, which holds normal images only; write test'


def _label(text: str) -> str | None:
  """Returns the type of defect that a label means, GOOD for normal; None where it means none."""
  word = text.strip()
  if means_good(word):
    return GOOD
  try:
    number = float(word)
  except ValueError:
    return _TRUTH.get(word.casefold(), word) or None
  if number in (0, 1):
    return ABNORMAL if number else GOOD
  # A negative one is normal to some, and abnormal to others.
  return word if number > 1 and number.is_integer() else None


def _split(line: Line) -> str | None:
  return _SPLITS.get(line.split.strip().casefold())


def _items(lines: Collection[Line], folder: pathlib.Path) -> dict[str, list[layout.Item]]:
  """Returns the images of each split, by type of defect, then in natural order."""
  paths = [pathlib.Path(os.path.normpath(folder / line.path)) for line in lines]
  inside = all(path.is_relative_to(folder) for path in paths)
  base = folder if inside else os.path.commonpath([path.parent for path in paths])
  found: dict[str, list[layout.Item]] = {'train': [], 'test': [], 'validation': []}
  for line, path in zip(lines, paths, strict=True):
    item = layout.Item(
      name=pathlib.PurePath(os.path.relpath(path, base)).as_posix(),
      defect=_label(line.label) or '',
      image=folder / line.path,
      masks=(folder / line.mask,) if line.mask else (),
    )
    found[_split(line) or 'train'].append(item)
  for items in found.values():
    items.sort(key=lambda item: (layout.natural_key(item.defect), layout.natural_key(item.name)))
  return found
