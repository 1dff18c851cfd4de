"""Results as they come, in a file that only grows; whoever sends them on reads them there."""

import contextlib
import json
import os
import pathlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.prediction_lines import EVENT, LINES, UNFINISHED
from patch_svdd_jax.system import files

# Bytes at the end of the file within which the last whole line is looked for.
TAIL = 2**20


class Event(NamedTuple):
  """A line of the journal.

  Attributes:
    id: tells it from all others; a receiver that gets it again knows it by that.
    body: its JSON, without the end of the line.
    end: where the next one begins in the file.
  """

  id: str
  body: bytes
  end: int


def number_of(event_id: str) -> int:
  """Returns the number in an event's id, which counts from 1 without gaps."""
  return int(event_id.rpartition('-')[2])


class Journal:
  """The file results.jsonl of a folder, that one process adds to and many threads read.

  A line is on disk for good, also if power is lost, before any reader sees it. One that a crash has
  cut off is removed when the file is opened: nobody has read it.

  Attributes:
    path: of the file.
    stream: in the ids of all its events.
    end: bytes of whole lines.
    changed: is notified when lines were added.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens the file, or begins one.

    Raises:
      UserError: there is something else, or the folder cannot be written.
    """
    self.path = folder / LINES
    self.stream, self.number, self.end = secrets.token_hex(4), 0, 0
    self.changed = threading.Condition()
    with files.explained(folder):
      folder.mkdir(parents=True, exist_ok=True)
      if (folder / UNFINISHED).exists():
        raise UserError(_others(folder / UNFINISHED))
      self._file = self.path.open('ab+')
      with contextlib.ExitStack() as failed:
        failed.callback(self._file.close)
        self._resume()
        failed.pop_all()
    self._assigned = self.number

  def _resume(self) -> None:
    """Cuts off what is no whole line, and finds the last event's id."""
    size = self._file.seek(0, os.SEEK_END)
    start = max(0, size - TAIL)
    self._file.seek(start)
    tail = self._file.read()
    self.end = size
    while tail:
      before, _, last = tail.removesuffix(b'\n').rpartition(b'\n')
      event_id = _event_id(last) if tail.endswith(b'\n') else None
      if event_id:
        self.stream, self.number = event_id.rpartition('-')[0], number_of(event_id)
        break
      if tail.endswith(b'\n') and _is_json(last):
        raise UserError(_others(self.path))
      tail = before + b'\n' if before else b''
      self.end = start + len(tail)
    if size and not self.end and start:
      raise UserError(f'{self.path} is damaged at its end: move it, or give another --output')
    self._file.truncate(self.end)

  def next_id(self) -> str:
    """Returns the id of the next event, which is to be added in this order."""
    self._assigned += 1
    return f'{self.stream}-{self._assigned:09d}'

  def add(self, records: Sequence[Mapping[str, Any]]) -> None:
    """Adds events, each with its id; they are on disk when this returns.

    Raises:
      UserError: the disk is full.
    """
    text = b''.join(json.dumps(record).encode() + b'\n' for record in records)
    with files.explained(self.path.parent):
      self._file.write(text)
      self._file.flush()
      os.fsync(self._file.fileno())
    with self.changed:
      self.end += len(text)
      self.number += len(records)
      self.changed.notify_all()

  def read(self, position: int = 0) -> Iterator[Event]:
    """Yields the events from a position on that are there, up to those added meanwhile."""
    with self.path.open('rb') as file:
      file.seek(position)
      while position < self.end:
        line = file.readline()
        position += len(line)
        event_id = _event_id(line)
        if event_id is None:
          raise UserError(f'{self.path} is damaged before byte {position}: move it away')
        yield Event(event_id, line.rstrip(b'\n'), position)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _event_id(line: bytes) -> str | None:
  try:
    found = json.loads(line)[EVENT]
    return found if number_of(found) else None
  except (AttributeError, KeyError, TypeError, ValueError):
    return None


def _is_json(line: bytes) -> bool:
  try:
    return isinstance(json.loads(line), dict)
  except ValueError:
    return False


def _others(path: pathlib.Path) -> str:
  return f'{path} is of another command: give another --output'
