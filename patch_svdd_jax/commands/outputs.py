"""The files that commands write where users ask for them: figures as JSON, and a plot."""

import argparse
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

SUFFIXES = ('.png', '.svg', '.pdf')


def add_json_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --json."""
  parser.add_argument('--json', type=console.path, metavar='FILE', help='figures as JSON')


def add_arguments(parser: argparse.ArgumentParser, plot: str) -> None:
  """Adds --json and --plot; `plot` is what it shows."""
  add_json_argument(parser)
  parser.add_argument(
    '--plot', type=console.path, metavar='FILE', help=f'{plot}, as .png, .svg or .pdf'
  )


def check(options: argparse.Namespace) -> None:
  """Refuses files that cannot be written, before anything is measured.

  Raises:
    UserError: names the file.
  """
  if options.plot:
    check_suffix('--plot', options.plot, SUFFIXES)
  for path in (options.json, options.plot):
    if path:
      files.check_writable(path)


def check_suffix(option: str, path: pathlib.Path, suffixes: Iterable[str]) -> str:
  """Returns the suffix of a file, in small letters, by which it is known what to write.

  Raises:
    UserError: it is none of some.
  """
  suffix, (*others, last) = path.suffix.lower(), suffixes
  if suffix not in (*others, last):
    raise UserError(f'{option} {path}: must end in {", ".join(others)} or {last}')
  return suffix


def write_json(path: pathlib.Path | None, contents: Any) -> None:
  """Writes what `check` or `files.check_writable` let pass, if asked for, and says so."""
  if path:
    files.write_json(path, contents)
    print(f'written: {path}')


def write(options: argparse.Namespace, contents: Any, draw: Callable[[str], bytes]) -> None:
  """Writes what was asked for, and says so; `draw` makes a plot of a kind, as 'png'."""
  write_json(options.json, contents)
  if options.plot:
    files.write(options.plot, draw(options.plot.suffix[1:].lower()))
    print(f'written: {options.plot}')
