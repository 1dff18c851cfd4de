"""The files that benchmarks write: figures as JSON, and a plot."""

import argparse
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import UserError

if TYPE_CHECKING:
  from matplotlib.figure import Figure

SUFFIXES = ('.png', '.svg', '.pdf')


def add_arguments(parser: argparse.ArgumentParser, plot: str) -> None:
  """Adds --json and --plot; `plot` is what it shows."""
  parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='figures as JSON')
  parser.add_argument(
    '--plot', type=pathlib.Path, metavar='FILE', help=f'{plot}, as .png, .svg or .pdf'
  )


def check(options: argparse.Namespace) -> None:
  """Refuses files that cannot be written, before anything is measured.

  Raises:
    UserError: names the file.
  """
  if options.plot and options.plot.suffix not in SUFFIXES:
    raise UserError(f'--plot {options.plot}: must end in .png, .svg or .pdf')
  for path in (options.json, options.plot):
    if path:
      console.check_writable(path)


def write(
  options: argparse.Namespace, contents: Mapping[str, Any], draw: Callable[[], 'Figure']
) -> None:
  """Writes what was asked for, and says so."""
  if options.json:
    console.write(options.json, (json.dumps(contents, indent=2) + '\n').encode())
    print(f'written: {options.json}')
  if options.plot:
    encoded = io.BytesIO()
    draw().savefig(encoded, format=options.plot.suffix[1:], dpi=150)
    console.write(options.plot, encoded.getvalue())
    print(f'written: {options.plot}')
