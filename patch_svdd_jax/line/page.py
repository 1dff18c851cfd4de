"""What is written when a line ends: the table of all results, and a page of those of this run."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.line import album
from patch_svdd_jax.line.album import Album
from patch_svdd_jax.line.journal import Journal, number_of
from patch_svdd_jax.reporting import html
from patch_svdd_jax.reporting.html import predicted
from patch_svdd_jax.reporting.prediction_lines import PAGE, TABLE, Line, parse
from patch_svdd_jax.reporting.predictions import write_table


def records(journal: Journal) -> Iterator[dict[str, Any]]:
  """Yields what was written of each image."""
  for event in journal.read():
    yield json.loads(event.body)


def lines(journal: Journal, position: int = 0) -> Iterator[tuple[int, Line]]:
  """Yields the lines from a position on, with their numbers."""
  for event in journal.read(position):
    if line := parse(event.body):
      yield number_of(event.id), line


def write(
  journal: Journal,
  begun: int,
  pictures: Album,
  detector: Detector,
  limit: Limits,
  *,
  title: str,
  warnings: Sequence[str],
) -> list[pathlib.Path]:
  """Writes the table and the page.

  Args:
    journal: of all results.
    begun: position in it from which on results are of this run.
    pictures: of this run.
    detector: of the results.
    limit: of their verdicts.
    title: of the page.
    warnings: what a reader should know first.

  Returns:
    The files.
  """
  folder = journal.path.parent
  write_table(folder / TABLE, (line for _, line in lines(journal)))
  earlier = number_of(next(iter(journal.read(begun)))[0]) - 1 if journal.end > begun else 0
  if earlier:
    warnings = [*warnings, f'{earlier:,} earlier results are in {TABLE}, and not on this page']
  page = predicted.make(
    (_titled(number, line) for number, line in lines(journal, begun)),
    pictures.highest,
    detector.config,
    title=title,
    map_name=detector.main_map,
    threshold=limit.image,
    warnings=warnings,
  )
  html.write(folder / PAGE, page)
  return [folder / TABLE, folder / PAGE]


def _titled(number: int, line: Line) -> Line:
  name = album.title(line.name, number)
  if isinstance(line, Prediction):
    return dataclasses.replace(line, name=name)
  return line._replace(name=name)
