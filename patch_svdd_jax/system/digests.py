"""Digests of all files of a folder, by which a damaged one is found before anything reads it.

What reads checkpoints notices some damage, and not always in one line; compressed numbers that are
others than those that were written it takes as they are.
"""

import hashlib
import io
import json
import os
import pathlib

import numpy as np

from patch_svdd_jax.system import files

FILE = 'digests.json'


def seal(folder: pathlib.Path) -> None:
  """Writes the digests of all files below a folder into it.

  Raises:
    UserError: it cannot be written.
  """
  files.write_json(folder / FILE, _digests(folder))


def damage(folder: pathlib.Path) -> str | None:
  """Describes the damage to a folder since it was sealed; None where there is none.

  None where nothing is, or the folder was never sealed.
  """
  try:
    digests = json.loads((folder / FILE).read_bytes())
  except FileNotFoundError:
    # Of an older version, or of a process that was killed in between.
    return None
  except (OSError, ValueError):
    return f'{FILE} cannot be read'
  if not isinstance(digests, dict):
    return f'{FILE} holds no digests'
  for name, expected in digests.items():
    try:
      found = _digest(folder / name)
    except OSError as error:
      return f'{name}: {os.strerror(error.errno or 0)}'
    if found != expected:
      return f'{name} has changed'
  return None


def of_folder(folder: pathlib.Path) -> str:
  """Returns the digest of all files below a folder, of which those that it was sealed with count.

  Raises:
    OSError: a file has gone meanwhile.
  """
  try:
    digests = json.loads((folder / FILE).read_bytes())
  except FileNotFoundError:
    digests = _digests(folder)
  return hashlib.blake2b(json.dumps(digests, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digests(folder: pathlib.Path) -> dict[str, str]:
  return {path.relative_to(folder).as_posix(): _digest(path) for path in _files(folder)}


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file() and path.name != FILE)


def _digest(path: pathlib.Path) -> str:
  with path.open('rb', buffering=0) as file:
    return digest_file(file)


def digest_file(file: io.FileIO) -> str:
  """Returns a digest of what is left to read of an open file, 32 hexadecimal digits."""
  return hashlib.file_digest(file, 'blake2b').hexdigest()[:32]


def digest_bytes(content: bytes) -> str:
  """Returns the digest of a file of this content, 32 hexadecimal digits."""
  return hashlib.blake2b(content).hexdigest()[:32]


def digest_parts(*parts: bytes | memoryview) -> str:
  """Returns a digest that tells these parts, one after another, from others."""
  found = hashlib.blake2b(digest_size=16)
  for part in parts:
    found.update(len(part).to_bytes(8))
    found.update(part)
  return found.hexdigest()


def digest(images: np.ndarray) -> str:
  """Returns a digest that tells images u8[N, H, W, 3] from others."""
  return hashlib.blake2b(np.ascontiguousarray(images).reshape(-1).data, digest_size=16).hexdigest()
