"""Two files of one benchmark side by side, as of two machines."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from patch_svdd_jax import configuration
from patch_svdd_jax.benchmarking import record
from patch_svdd_jax.benchmarking.measuring import TOTAL
from patch_svdd_jax.benchmarking.report import size_text
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.reporting.table import Column, Table

# Settings of the machine, which change no figure.
PLACES = ('config.data.root', 'config.data.prepared', 'config.data.cache_gib')


class Figure(NamedTuple):
  """A figure that is compared.

  Attributes:
    title: with its unit.
    value: finds it in a row; None where it was not measured.
    form: how it is formatted.
  """

  title: str
  value: Callable[[Mapping[str, Any]], float | None]
  form: str = ',.4g'


class Kind(NamedTuple):
  """A benchmark whose files can be compared.

  Attributes:
    point: by title, the text of what a row was measured of; rows of the same are compared.
    figures: that are compared.
    free: settings that may differ.
  """

  point: Mapping[str, Callable[[Mapping[str, Any]], str]]
  figures: Sequence[Figure]
  free: tuple[str, ...]


KINDS = {
  'train': Kind(
    {
      'devices': lambda row: f'{row["devices"]:,}',
      'batch': lambda row: f'{row["batch"]:,}',
    },
    (
      Figure('pairs/s', lambda row: row['pairs_per_s']),
      Figure('of peak', lambda row: row['utilisation'], '.1%'),
      Figure('MB', lambda row: None if row['memory'] is None else row['memory'] / 1e6),
    ),
    PLACES,
  ),
  'predict': Kind(
    {
      'contender': lambda row: str(row['contender']),
      'pixels': lambda row: size_text(tuple(row['size'])),
      'patches': lambda row: f'{row["bank_rows"]:,}',
    },
    (
      Figure('images/s', lambda row: row['images_per_s']),
      Figure('p50, ms', lambda row: 1e3 * row['alone'][TOTAL]['p50']),
      Figure('p95, ms', lambda row: 1e3 * row['alone'][TOTAL]['p95']),
      Figure('MiB', lambda row: row['peak_memory'] / 2**20),
    ),
    # That of the last size: each row has its own.
    (*PLACES, 'config.data.image_size'),
  ),
  'runtime': Kind(
    {
      'pixels': lambda row: size_text(tuple(row['size'])),
      'patches': lambda row: f'{row["bank_rows"]:,}',
    },
    (
      Figure('mean, ms', lambda row: 1e3 * row['mean']),
      Figure('min, ms', lambda row: 1e3 * row['min']),
      Figure('max, ms', lambda row: 1e3 * row['max']),
      Figure('MiB', lambda row: row['peak_memory'] / 2**20),
    ),
    (*PLACES, 'config.data.image_size'),
  ),
}


def compare(one: pathlib.Path, other: pathlib.Path) -> str:
  """Returns the table of two files, with ratios, and what the files are, in lines.

  Raises:
    UserError: a file cannot be read, or they are of different benchmarks or settings.
  """
  first, second = record.read(one), record.read(other)
  kind = kind_of({one: first, other: second})
  try:
    check_settings(f'{one} and {other}', first['config'], second['config'], kind.free)
    return '\n'.join(
      [
        table(kind, f'{one} and {other}', first['rows'], second['rows']),
        describe('A', one, first),
        describe('B', other, second),
        'Dashes: not measured.',
      ]
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{one} or {other} is damaged: {error!r}') from error


def kind_of(files: Mapping[pathlib.Path, Mapping[str, Any]]) -> Kind:
  """Returns what files are of.

  Raises:
    UserError: they are of different benchmarks, or of one that cannot be compared.
  """
  found = {path: contents['benchmark'] for path, contents in files.items()}
  for path, name in found.items():
    if name not in KINDS:
      raise UserError(f'{path} is of the benchmark {name!r}: give files of {" or ".join(KINDS)}')
  if len(set(found.values())) > 1:
    listed = ', '.join(f'{path} is of `benchmark {name}`' for path, name in found.items())
    raise UserError(f'{listed}: give two of one kind')
  return KINDS[next(iter(found.values()))]


def check_settings(
  names: str, one: Mapping[str, Any], other: Mapping[str, Any], free: tuple[str, ...]
) -> None:
  """Refuses to compare figures that were measured with different settings.

  Args:
    names: of the files.
    one: the config of the first.
    other: that of the second.
    free: keys that may differ.

  Raises:
    UserError: lists those that differ.
  """
  before, after = (dict(configuration.flatten(config)) for config in (one, other))
  different = [
    f'{key}: {before.get(key, "absent")!r} and {after.get(key, "absent")!r}'
    for key in dict.fromkeys((*before, *after))
    if key not in free and before.get(key) != after.get(key)
  ]
  if different:
    raise UserError(f'{names} differ in their settings ({"; ".join(different)}): measure one anew')


def table(
  kind: Kind, names: str, one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> str:
  """Returns a line about each point of either file, in Markdown: A, B, and B / A of each figure.

  Raises:
    UserError: no point is in both.
  """
  first, second = (
    {tuple(text(row) for text in kind.point.values()): row for row in rows} for rows in (one, other)
  )
  if not first.keys() & second.keys():
    raise UserError(f'{names} have no {", ".join(kind.point)} in common')
  columns = [Column(title, title) for title in kind.point]
  for title, _, form in kind.figures:
    columns += [Column(f'{title} {name}', f'{title} {name}', form) for name in 'AB']
    columns.append(Column(f'{title} ratio', 'B / A', '.3g'))
  lines = []
  for point in dict.fromkeys((*first, *second)):
    line: dict[str, Any] = dict(zip(kind.point, point, strict=True))
    for title, value, _ in kind.figures:
      a, b = (value(rows[point]) if point in rows else None for rows in (first, second))
      line |= {f'{title} A': a, f'{title} B': b, f'{title} ratio': b / a if a and b else None}
    lines.append(line)
  return Table(columns, lines).to_markdown()


def describe(name: str, path: pathlib.Path, contents: Mapping[str, Any]) -> str:
  """Returns a line about a file."""
  versions = ', '.join(f'{package} {version}' for package, version in contents['versions'].items())
  return f'{name}: {path}, {contents["device"]}, {versions}'
