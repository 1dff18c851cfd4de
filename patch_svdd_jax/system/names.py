"""Names of files and folders that every system takes, whatever theirs were that they are made from.

Windows refuses some characters, dots and spaces at the end, and the names of its devices. Results
may be moved to it, or lie on a share that obeys it, so all systems write the same names.
"""

import hashlib
import os
import pathlib
import re

from patch_svdd_jax.system import files

_FOREIGN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
_DEVICE = re.compile(
  r'(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]|conin\$|conout\$) *(\.|$)', re.IGNORECASE
)


def portable(path: pathlib.PurePosixPath) -> pathlib.PurePosixPath:
  """Returns a relative path, each part of which that a system refuses has another name.

  That has `_` for what is refused, and a digest of the whole part: no two become one. Other parts
  stay as they are.
  """
  return pathlib.PurePosixPath(*map(_portable, path.parts))


def _portable(name: str) -> str:
  device = _DEVICE.match(name)
  if not device and not _FOREIGN.search(name):
    return name
  plain = _FOREIGN.sub('_', f'_{name}' if device else name)
  return files.fitting(plain, f'~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}')
