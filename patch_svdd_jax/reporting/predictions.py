"""What is predicted of images, on disk: a line of JSON for each, and a table of all.

Lines are added to `results.jsonl.partial` as they come, below one that says what they were made
with; the file gets its name when all images are there. A run that was stopped goes on behind the
last whole line.
"""

import contextlib
import csv
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

LINES, TABLE = 'results.jsonl', 'results.csv'
COLUMNS = ('image', 'verdict', 'score', 'p_value', 'regions', 'area', 'warnings', 'error')


class Failure(NamedTuple):
  """An image that could not be read, by its name, and why."""

  name: str
  error: str

  def to_json(self) -> dict[str, Any]:
    """Returns it as JSON has it."""
    return {'image': self.name, 'error': self.error}


Line = Prediction | Failure


class Predictions:
  """The results in a folder, that are being written."""

  def __init__(self, folder: pathlib.Path, made_with: dict[str, Any]):
    """Goes on with what is there.

    Args:
      folder: of the results; made where it is missing.
      made_with: what lines depend on; JSON values.

    Raises:
      UserError: what is there was made with something else, or the folder cannot be written.
    """
    self.folder = folder
    self._partial = folder / f'{LINES}.partial'
    with files.explained(folder):
      folder.mkdir(parents=True, exist_ok=True)
      self._whole_lines(made_with)
      self._file = self._partial.open('a')
    if not self._partial.stat().st_size:
      try:
        self._write([made_with])
      except UserError:
        self._close()
        raise

  def __enter__(self) -> 'Predictions':
    return self

  def __exit__(self, *_: object) -> None:
    self._close()

  def _close(self) -> None:
    # What a full disk has refused it is offered again, and refuses again: that was said.
    with contextlib.suppress(OSError):
      self._file.close()

  def _whole_lines(self, made_with: dict[str, Any]) -> None:
    """Cuts the file off where a line has no end or is garbled: its process or its disk failed."""
    if not self._partial.exists():
      return
    with self._partial.open('rb+') as file:
      first = file.readline()
      if first.endswith(b'\n') and not says(first, made_with):
        raise UserError(
          f'{self._partial} was begun with another model or other rates: remove it, or give '
          'another --output'
        )
      end = len(first) if first.endswith(b'\n') else 0
      for line in file:
        if not (line.endswith(b'\n') and parse(line)):
          break
        end += len(line)
      file.truncate(end)

  def add(self, lines: Iterable[Line]) -> None:
    """Writes lines, which are on disk when this returns.

    Raises:
      UserError: the disk is full.
    """
    self._write([line.to_json() for line in lines])

  def _write(self, records: Iterable[dict[str, Any]]) -> None:
    with files.explained(self.folder):
      for each in records:
        self._file.write(json.dumps(each) + '\n')
      self._file.flush()

  def read(self) -> Iterator[Line]:
    """Yields the lines that are there."""
    with self._partial.open() as file:
      next(file)
      yield from filter(None, map(parse, file))

  def finish(self) -> None:
    """Writes the table, and gives the lines their name."""
    with files.explained(self.folder):
      with (
        files.whole(self.folder / TABLE) as table,
        # A name on disk need not be UTF-8; as in the lines, it is escaped.
        table.open('w', newline='', encoding='utf-8', errors='backslashreplace') as sheet,
      ):
        writer = csv.DictWriter(sheet, COLUMNS, extrasaction='ignore')
        writer.writeheader()
        writer.writerows(map(row, self.read()))
      with files.whole(self.folder / LINES) as lines, lines.open('w') as file:
        file.writelines(json.dumps(line.to_json()) + '\n' for line in self.read())
      self._partial.unlink()


def says(line: bytes, contents: dict[str, Any]) -> bool:
  """Returns whether a line is JSON of these contents."""
  try:
    return bool(json.loads(line) == contents)
  except ValueError:
    return False


def parse(line: str | bytes) -> Line | None:
  """Returns what a line says; None where it says nothing of an image."""
  try:
    found = json.loads(line)
    if 'error' in found:
      return Failure(found['image'], found['error'])
    return Prediction.from_json(found)
  except (KeyError, TypeError, ValueError):
    return None


def row(line: Line) -> dict[str, Any]:
  """Returns a line of the table: of regions their number and area, texts joined."""
  if isinstance(line, Failure):
    return line.to_json()
  return line.to_json() | {
    'regions': len(line.regions),
    'area': sum(region.area for region in line.regions),
    'warnings': '; '.join(line.warnings),
  }
