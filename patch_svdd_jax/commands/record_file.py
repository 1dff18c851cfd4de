"""What a command of many runs has measured so far: a JSON file in its workdir, with the config."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files


def read(
  path: pathlib.Path,
  config: ml_collections.ConfigDict,
  section: str,
  command: str,
  free: Sequence[str] = (),
) -> dict[str, Any]:
  """One section of the record; empty where there is no file yet.

  Args:
    path: of the file.
    config: the present one.
    section: the section's name.
    command: whose file it is, as 'sweep'.
    free: keys that may differ besides those without effect, as 'config.seed:'.

  Raises:
    UserError: it is no such file, or one of another config.
  """
  if not path.exists():
    return {}
  try:
    contents = json.loads(path.read_text())
    before = configuration.from_json(json.dumps(contents['config']), str(path))
    found: dict[str, Any] = contents[section]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} is no file of {command}: use another --workdir') from error
  configuration.check_unchanged(before, config, path.parent, (*configuration.WITHOUT_EFFECT, *free))
  return found


def write(path: pathlib.Path, config: ml_collections.ConfigDict, contents: dict[str, Any]) -> None:
  """Writes the record: the config, and sections by name."""
  files.write_json(path, {'config': config.to_dict()} | contents)
