"""What is predicted of images, on disk: a line of JSON for each, and a table of all.

Lines are added to `results.jsonl.partial` as they come, below one that says what they were made
with; the file gets its name when all images are there. A run that was stopped goes on behind the
last whole line.
"""

import contextlib
import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from patch_svdd_jax.detection.inspection import Inspection
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

LINES, TABLE = 'results.jsonl', 'results.csv'
COLUMNS = ('image', 'verdict', 'score', 'p_value', 'regions', 'area', 'warnings', 'error')


def record(name: str, found: Inspection, index: int, size: np.ndarray) -> dict[str, Any]:
  """What is known of one image of an inspection, as JSON has it.

  Args:
    name: of the image.
    found: on all images of a batch.
    index: which one it is.
    size: i64[2], its (height, width) in pixels.
  """
  return {
    'image': name,
    'verdict': 'alarm' if found.alarms[index] else 'pass',
    'score': float(found.scores[index]),
    'p_value': float(found.p_values[index]),
    'size': [int(size[1]), int(size[0])],
    'regions': [region_record(region) for region in found.regions[index]],
    'warnings': list(found.warnings[index]),
  }


def region_record(region: Region) -> dict[str, Any]:
  """A region as JSON has it: box [left, top, width, height] and area in pixels of the file."""
  return {'box': list(region.box), 'area': region.area, 'score': region.score}


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
        self.add([made_with])
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
      if first.endswith(b'\n') and parse(first) != made_with:
        raise UserError(
          f'{self._partial} was begun with another model or other rates: remove it, or give '
          'another --output'
        )
      end = len(first) if first.endswith(b'\n') else 0
      for line in file:
        if not (line.endswith(b'\n') and isinstance(parse(line), dict)):
          break
        end += len(line)
      file.truncate(end)

  def add(self, records: list[dict[str, Any]]) -> None:
    """Writes lines, which are on disk when this returns.

    Raises:
      UserError: the disk is full.
    """
    with files.explained(self.folder):
      for each in records:
        self._file.write(json.dumps(each) + '\n')
      self._file.flush()

  def read(self) -> Iterator[dict[str, Any]]:
    """The lines that are there."""
    with self._partial.open() as file:
      next(file)
      yield from map(json.loads, file)

  def finish(self) -> None:
    """Writes the table, and gives the lines their name."""
    with files.explained(self.folder):
      with (
        files.whole(self.folder / TABLE) as table,
        # A name on disk need not be UTF-8; as in the lines, it is escaped.
        table.open('w', newline='', encoding='utf-8', errors='backslashreplace') as sheet,
      ):
        writer = csv.DictWriter(sheet, COLUMNS)
        writer.writeheader()
        writer.writerows(map(row, self.read()))
      with files.whole(self.folder / LINES) as lines, lines.open('w') as file:
        file.writelines(json.dumps(each) + '\n' for each in self.read())
      self._partial.unlink()


def parse(line: bytes) -> Any:
  """What a line says; None where it is no JSON."""
  try:
    return json.loads(line)
  except ValueError:
    return None


def row(each: dict[str, Any]) -> dict[str, Any]:
  """A line of the table: of regions their number and area, texts joined."""
  regions = each.get('regions', [])
  return {name: each.get(name, '') for name in COLUMNS} | {
    'regions': len(regions) if 'regions' in each else '',
    'area': sum(region['area'] for region in regions) if 'regions' in each else '',
    'warnings': '; '.join(each.get('warnings', [])),
  }
