"""A table of figures by row and column: as Markdown, as CSV, and its mean."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# What means something else in LaTeX.
_LATEX = str.maketrans(
  {char: f'\\{char}' for char in '&%$#_{}'}
  | {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
  | {'±': r'$\pm$'}
)


class Column(NamedTuple):
  """A column of a `Table`.

  Attributes:
    name: by which rows have its values; its heading in CSV.
    title: its heading in Markdown, where one without it is left out.
    form: how its numbers are formatted in Markdown; one without it holds text.
  """

  name: str
  title: str | None = None
  form: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows by the names of their columns; None, NaN or no value at all stand for an unknown one."""

  columns: Sequence[Column]
  rows: Sequence[Mapping[str, Any]]

  def to_markdown(self) -> str:
    """Returns the columns that have a title, with dashes for unknown values."""
    return markdown([str(column.title) for column in self._shown], self.cells())

  def cells(self) -> list[list[str]]:
    """Returns the texts of the rows in the columns that have a title."""
    return [
      [cell(row.get(column.name), column.form) for column in self._shown] for row in self.rows
    ]

  @property
  def _shown(self) -> list[Column]:
    return [column for column in self.columns if column.title is not None]

  def to_csv(self) -> str:
    """Returns all columns in full precision; unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([column.name for column in self.columns])
    writer.writerows([known(row.get(name)) for name, *_ in self.columns] for row in self.rows)
    return text.getvalue()

  def mean(self) -> dict[str, float | None]:
    """Returns the mean of each column of numbers; None where a row lacks one, or there is none."""
    values = {
      column.name: [known(row.get(column.name)) for row in self.rows]
      for column in self.columns
      if column.form
    }
    return {
      name: None if not each or None in each else float(np.mean(each))
      for name, each in values.items()
    }


def known(value: Any) -> Any:
  """Returns the value, or None for NaN, which metrics that need both classes are."""
  return None if isinstance(value, float) and math.isnan(value) else value


def cell(value: Any, form: str) -> str:
  """Returns a number as `form` has it, text as it is, and a dash for what is unknown."""
  value = known(value)
  if value is None:
    return '-'
  return value if isinstance(value, str) else format(value, form)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table whose columns are aligned: the first to the left, numbers to the right."""
  lines = [list(header), *map(list, rows)]
  widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

  def render(line: Sequence[str]) -> str:
    first, *others = zip(line, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return '| ' + ' | '.join(cells) + ' |'

  rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  return '\n'.join([render(lines[0]), render(rule), *map(render, lines[1:])])


def latex(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table for LaTeX with the package booktabs; the last row, of means, stands apart."""
  *body, last = [' & '.join(map(_latex_text, row)) + r' \\' for row in rows]
  names = ' & '.join(map(_latex_text, header)) + r' \\'
  lines = [
    rf'\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}',
    *(r'\toprule', names, r'\midrule', *body, r'\midrule', last, r'\bottomrule'),
    r'\end{tabular}',
  ]
  return '\n'.join(lines) + '\n'


def _latex_text(text: str) -> str:
  return '--' if text == '-' else text.translate(_LATEX)
