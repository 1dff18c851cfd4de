"""Experiments of many jobs: what is measured is kept, what failed is tried again.

An experiment keeps an entry for each job in a JSON file in its workdir, from which the same command
resumes. The entry of a job that failed has an 'error', one line.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import ml_collections

from patch_svdd_jax import configuration, errors
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments.training_run import StoppedError
from patch_svdd_jax.reporting.table import Table
from patch_svdd_jax.system import distributed, files, working_copy

Entry = dict[str, Any]
AnyJob = TypeVar('AnyJob', bound='Job')


class Rendered(NamedTuple):
  """Results of an experiment so far, for people and for other programs.

  Attributes:
    text: tables and remarks, as Markdown.
    table: for CSV.
    latex: tables for LaTeX; '' for none.
  """

  text: str
  table: Table
  latex: str = ''


@dataclasses.dataclass(frozen=True)
class Job:
  """A part of an experiment: its name, whole config and folder."""

  name: str
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


@dataclasses.dataclass
class Record:
  """The JSON file of an experiment, and the tables beside it."""

  path: pathlib.Path
  contents: dict[str, Any]

  @classmethod
  def read(cls, path: pathlib.Path, command: str, *sections: str) -> 'Record':
    """Reads the file, or begins one.

    Args:
      path: of the file.
      command: whose file it is, as 'sweep'.
      sections: the names of objects in it; without any, all that is in it are objects.

    Raises:
      UserError: it is no such file.
    """
    if not path.exists():
      return cls(path, {name: {} for name in sections})
    try:
      contents = json.loads(path.read_bytes())
      parts = [contents[name] for name in sections] if sections else list(contents.values())
      if not all(isinstance(part, dict) for part in parts):
        raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f'{path} is no file of {command}: use another --workdir') from error
    return cls(path, contents)

  def config(self, kept: Entry) -> ml_collections.ConfigDict:
    """Returns a config that the file has as an object."""
    return configuration.from_json(json.dumps(kept), str(self.path))

  def begin(
    self,
    config: ml_collections.ConfigDict,
    name: str = 'config',
    section: dict[str, Any] | None = None,
    free: Sequence[str] = (),
  ) -> None:
    """Checks that a config is the one that the experiment began with, and keeps it.

    Args:
      config: the present one.
      name: which one of the section.
      section: of the contents; all of them by default.
      free: keys that may differ besides those without effect, as 'config.seed:'.

    Raises:
      UserError: lists the keys that differ.
    """
    section = self.contents if section is None else section
    if section.get(name):
      free = (*configuration.WITHOUT_EFFECT, *free)
      configuration.check_unchanged(self.config(section[name]), config, self.path.parent, free)
    section[name] = config.to_dict()

  def write(self, found: Rendered) -> None:
    """Writes the contents as JSON, and what was found as Markdown, CSV and perhaps LaTeX."""
    if distributed.is_first():
      files.write_json(self.path, self.contents)
      texts = {'.md': f'{found.text}\n', '.csv': found.table.to_csv()}
      if found.latex:
        texts['.tex'] = found.latex
      for suffix, each in texts.items():
        # A name on disk need not be UTF-8.
        files.write(self.path.with_suffix(suffix), each.encode(errors='backslashreplace'))


def run(
  record: Record,
  entries: dict[str, Entry],
  jobs: Sequence[AnyJob],
  *,
  is_measured: Callable[[AnyJob, Entry], bool],
  measure: Callable[[AnyJob, Entry], None],
  render: Callable[[], Rendered],
  failures: tuple[type[Exception], ...] = (UserError,),
) -> int:
  """Measures the jobs that are left, one after another, and prints the table.

  Args:
    record: is written after each job.
    entries: by name of job; of those that the record has.
    jobs: all that are asked for.
    is_measured: tells whether the entry of a job that has not failed is complete.
    measure: adds to the entry of a job, which holds what an earlier try has left.
    render: puts the entries into the record's contents; returns what `Record.write` takes.
    failures: errors that let the other jobs go on.

  Returns:
    The exit status: 1 where a job has failed, that of the signal where one was stopped.
  """
  left = [
    job
    for job in jobs
    if 'error' in entries.get(job.name, {}) or not is_measured(job, entries.get(job.name, {}))
  ]
  start = time.monotonic()
  for number, job in enumerate(left, 1):
    ahead = time_left(time.monotonic() - start, number - 1, len(left))
    print(f'{number} of {len(left)}: {job.name}{ahead}', file=sys.stderr)
    entry = entries.setdefault(job.name, {})
    entry.pop('error', None)
    try:
      with working_copy.locked(job.workdir) if distributed.is_first() else contextlib.nullcontext():
        measure(job, entry)
    except StoppedError as stopped:
      if not entry:
        del entries[job.name]
      record.write(render())
      print(stopped)
      return stopped.status
    # Hours of other jobs are not to be lost by one that fails.
    except failures as error:
      entry['error'] = one_line(error)
      print(f'{job.name} failed: {entry["error"]}', file=sys.stderr)
    record.write(render())
  found = render()
  record.write(found)
  sys.stderr.flush()
  print(f'{found.text}\n\nwritten: {record.path.parent}')
  return int(any('error' in entries[job.name] for job in jobs))


def time_left(seconds: float, done: int, count: int) -> str:
  """Returns what to say of the time left, after some of so many jobs took so many seconds."""
  if not done:
    return ''
  minutes = round(seconds / done * (count - done) / 60)
  return f', about {minutes // 60}:{minutes % 60:02} hours left'


def one_line(error: Exception) -> str:
  """Returns a line about an error; of what nobody foresaw, with its type, and prints where."""
  if isinstance(error, UserError):
    return errors.one_line(str(error))
  text = (str(error).strip() or 'no message').splitlines()[0]
  if isinstance(error, jax.errors.JaxRuntimeError):  # as of memory that is full
    return text
  traceback.print_exception(error)
  return f'{type(error).__name__}: {text}'
