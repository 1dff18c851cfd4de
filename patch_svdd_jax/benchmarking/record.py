"""The JSON files of benchmarks, which say what was measured, where, and with what settings."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

from patch_svdd_jax import __version__
from patch_svdd_jax.errors import UserError

# Keys that every file has.
KEYS = ('benchmark', 'device', 'versions', 'config', 'rows')


def contents(
  benchmark: str,
  device: str,
  config: ml_collections.ConfigDict,
  rows: Sequence[Mapping[str, Any]],
  **more: Any,
) -> dict[str, Any]:
  """Returns the contents of a file.

  Args:
    benchmark: its name.
    device: that it ran on, in words.
    config: that it ran with.
    rows: what was measured.
    more: besides, by name.
  """
  return {
    'benchmark': benchmark,
    'device': device,
    'versions': {'patch_svdd_jax': __version__, 'jax': jax.__version__},
    'config': config.to_dict(),
    'rows': list(rows),
  } | more


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads the file of a benchmark.

  Raises:
    UserError: it cannot be read, or is no such file.
  """
  try:
    found = json.loads(path.read_text('utf-8'))
  except OSError as error:
    raise UserError(f'{path}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'{path} is no JSON file: {error}') from error
  if not isinstance(found, dict) or any(key not in found for key in KEYS):
    raise UserError(f'{path} is no file of `patch-svdd benchmark ... --json`')
  return found
