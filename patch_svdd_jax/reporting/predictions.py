"""What is predicted of images, on disk: a line of JSON for each, and a table of all.

Lines are added to `results.jsonl.partial` as they come, below two others: what they were made with,
and the names of all images that may get pictures before they have a line. The file gets its name
when all images are there. A run that was stopped goes on behind the last whole line, if the same is
asked for again; see `earlier_results`.
"""

import contextlib
import csv
import json
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.reporting import earlier_results, overlays
from patch_svdd_jax.reporting.earlier_results import Earlier
from patch_svdd_jax.reporting.prediction_lines import (
  LINES,
  TABLE,
  UNFINISHED,
  Failure,
  Line,
  parse,
)
from patch_svdd_jax.reporting.prediction_overlays import PLACES, Which, is_drawn
from patch_svdd_jax.system import files

COLUMNS = ('image', 'verdict', 'score', 'p_value', 'regions', 'area', 'warnings', 'error')


class Predictions:
  """The results in a folder, that are being written.

  Attributes:
    folder: where they are.
    paths: of the pictures of each image, below masks/ and overlays/.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    made_with: Mapping[str, Any],
    sources: Sequence[Source],
    pictures: Which,
    *,
    restart: bool = False,
  ):
    """Goes on with an unfinished run of the same, or begins, and removes what was there before.

    Args:
      folder: of the results; made where it is missing.
      made_with: what lines depend on besides the images, by what it is called; JSON values.
      sources: of all images, in the order of their lines.
      pictures: of which images there are.
      restart: whether to begin in any case.

    Raises:
      UserError: what is there was made with something else, or is someone else's, or the folder
        cannot be written.
    """
    self.folder = folder
    self.paths = overlays.picture_paths(source.name for source in sources)
    self._unfinished = folder / UNFINISHED
    self._made_with = dict(made_with) | {'choice of pictures': pictures}
    # Where in the file each line begins.
    self._lines: dict[str, int] = {}
    with files.explained(folder):
      folder.mkdir(parents=True, exist_ok=True)
      earlier = earlier_results.look(folder)
      kept: set[str] = set()
      if earlier.made_with is not None and not restart:
        earlier_results.check_same(folder, earlier, self._made_with, sources)
        kept = self._with_pictures(earlier, pictures)
      self._begin(earlier.names, kept)
      drawn = {name for name in kept if is_drawn(earlier.lines[name].alarm, pictures)}
      earlier_results.remove_others(folder, earlier, {self.paths[name] for name in drawn})
      self._file = self._unfinished.open('rb+')
      self._file.seek(0, 2)

  def __enter__(self) -> 'Predictions':
    return self

  def __exit__(self, *_: object) -> None:
    # What a full disk has refused it is offered again, and refuses again: that was said.
    with contextlib.suppress(OSError):
      self._file.close()

  def _with_pictures(self, earlier: Earlier, which: Which) -> set[str]:
    """Returns the names of the lines whose pictures are there, if they have any."""
    return {
      name
      for name, line in earlier.lines.items()
      if not is_drawn(line.alarm, which)
      or all((self.folder / place / self.paths[name]).exists() for place in PLACES)
    }

  def _begin(self, names: set[str], kept: set[str]) -> None:
    """Writes the file anew, with the lines to keep; from here on there is nothing else to go on."""
    begun = sorted((names | self.paths.keys()) - kept)
    with files.whole(self._unfinished) as path, path.open('wb') as file:
      for record in (self._made_with, {earlier_results.BEGUN: begun}):
        file.write(_encoded(record))
      if kept:
        with self._unfinished.open('rb') as before:
          for text in before:
            line = parse(text)
            if line and line.name in kept and line.name not in self._lines:
              self._lines[line.name] = file.tell()
              file.write(text)

  def add(
    self, lines: Iterable[Line], statistics: Mapping[str, Mapping[str, float]] | None = None
  ) -> None:
    """Writes lines, which are on disk when this returns.

    Args:
      lines: of some images.
      statistics: of these images, by their names, which an unfinished run goes on with.

    Raises:
      UserError: the disk is full.
    """
    with files.explained(self.folder):
      for line in lines:
        self._lines[line.name] = self._file.tell()
        more = statistics.get(line.name) if statistics else None
        self._file.write(_encoded(line.to_json() | ({'statistics': more} if more else {})))
      self._file.flush()

  @property
  def names(self) -> Collection[str]:
    """Returns the names of the images that have a line."""
    return self._lines.keys()

  def read(self) -> Iterator[Line]:
    """Yields the lines that are there, in the order of the images."""
    yield from filter(None, map(parse, self._texts()))

  def statistics(self) -> Iterator[Mapping[str, float]]:
    """Yields what was added with each line, in the order of the images."""
    yield from (json.loads(text).get('statistics', {}) for text in self._texts())

  def _texts(self) -> Iterator[bytes]:
    with self._unfinished.open('rb') as file:
      for name in self.paths:
        if name in self._lines:
          file.seek(self._lines[name])
          yield file.readline()

  def finish(self) -> None:
    """Writes the table, and gives the lines their name."""
    with files.explained(self.folder):
      write_table(self.folder / TABLE, self.read())
      with files.whole(self.folder / LINES) as lines, lines.open('wb') as file:
        file.writelines(_encoded(line.to_json()) for line in self.read())
      self._unfinished.unlink()


def _encoded(record: Mapping[str, Any]) -> bytes:
  return json.dumps(record).encode() + b'\n'


def write_table(path: pathlib.Path, lines: Iterable[Line]) -> None:
  """Writes the table of lines, which appears whole or not at all."""
  with (
    files.whole(path) as table,
    # A name on disk need not be UTF-8; as in the lines, it is escaped.
    table.open('w', newline='', encoding='utf-8', errors='backslashreplace') as sheet,
  ):
    writer = csv.DictWriter(sheet, COLUMNS, extrasaction='ignore')
    writer.writeheader()
    writer.writerows(map(row, lines))


def row(line: Line) -> dict[str, Any]:
  """Returns a line of the table: of regions their number and area, texts joined."""
  if isinstance(line, Failure):
    return line.to_json()
  return line.to_json() | {
    'regions': len(line.regions),
    'area': sum(region.area for region in line.regions),
    'warnings': '; '.join(line.warnings),
  }
