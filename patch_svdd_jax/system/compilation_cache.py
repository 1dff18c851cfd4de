"""Compiled programs, kept on disk by jax from one process to the next.

jax's own files are written in place and never replaced: what a killed process or a full disk cut
off is compiled again in each process from then on. Its bound on their size needs one more package
and a lock for each program that is read. The files here are whole, or not there; each is sealed
by a digest, so that one that was damaged is made anew; those not used for longest make room.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import stat
import uuid
from collections.abc import Iterator

import jax
import jaxlib.version
from jax._src import compilation_cache as of_jax
from jax._src.compilation_cache_interface import CacheInterface

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, processor

FOLDER = 'programs'
# Setting it to one of the words keeps nothing.
VARIABLE, OFF = 'PATCH_SVDD_COMPILATION_CACHE', ('off', '0', 'false', 'no')
BOUND = 256 * 2**20  # bytes of all programs
# Earlier versions print an error for each program that they load on CPUs with AVX-512.
EARLIEST = (0, 10, 2)
# Its lines that say which instructions there are, on x86 and ARM.
_INSTRUCTIONS = re.compile(
  r'(?:vendor_id|cpu family|model|flags|Features|CPU (?:implementer|variant|part))\s*:.*'
)
SETTINGS = {
  # All programs: the small ones take longest together.
  'jax_persistent_cache_min_compile_time_secs': 0,
  'jax_persistent_cache_min_entry_size_bytes': -1,
  # XLA's own files are not bounded.
  'jax_persistent_cache_enable_xla_caches': 'none',
}
_SEAL = 16
_NAME = re.compile(rf'[0-9a-f]{{64}}|[0-9a-f]{{32}}{re.escape(files.UNFINISHED)}')


class Programs(CacheInterface):
  """The programs in a folder, which several processes may share, as jax asks for them.

  One that cannot be read is not there; one that cannot be written is not kept, without a word.
  """

  def __init__(self, folder: pathlib.Path, bound: int):
    """Reads and writes nothing yet.

    Args:
      folder: is made where it is missing.
      bound: bytes of all programs.
    """
    self._path = folder
    self._bound, self._share = bound, bound // 8
    self._room = 0
    self._cpu = _instructions()

  def place(self, key: str) -> pathlib.Path:
    """Returns the file of a key, of this kind of CPU alone: several may share a home."""
    return self._path / hashlib.sha256(f'{self._cpu}\n{key}'.encode()).hexdigest()

  def get(self, key: str) -> bytes | None:
    """Returns the program of a key, and notes that it is used now."""
    place = self.place(key)
    try:
      sealed = place.read_bytes()
    except OSError:
      return None
    program, seal = sealed[:-_SEAL], sealed[-_SEAL:]
    if seal != _seal(place, program):
      return None
    with contextlib.suppress(OSError):
      os.utime(place)
    return program

  def put(self, key: str, value: bytes) -> None:
    """Keeps a program, if it can be written, in place of those not used for longest.

    One that is larger than an eighth of the bound is not kept.
    """
    if len(value) + _SEAL > self._share:
      return
    place = self.place(key)
    # Of its own name: another process may write the same.
    unfinished = self._path / f'{uuid.uuid4().hex}{files.UNFINISHED}'
    with contextlib.suppress(OSError):
      self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
      self._make_room(len(value) + _SEAL)
      try:
        unfinished.write_bytes(value + _seal(place, value))
        unfinished.replace(place)
      finally:
        unfinished.unlink(missing_ok=True)

  def _make_room(self, size: int) -> None:
    """Removes what was not used for longest, as soon as this process has written an eighth more."""
    self._room -= size
    if self._room < 0:
      remove(self._path, self._bound - self._share)
      self._room = self._share - size


def enable() -> pathlib.Path | None:
  """Lets jax keep the programs that it compiles from now on, and use those that it kept before.

  They lie in `files.cache_folder`. The settings of jax are changed for the whole process, as the
  command line does and importing this package does not.

  Returns:
    The folder; None where nothing is kept: the environment variable `VARIABLE` says so, jax was
    given another folder or told to do without, or the folder cannot be made or is not this user's
    alone, for what is kept in it is run.
  """
  folder = _allowed()
  if folder:
    of_jax.get_file_cache = _opened
    for name, value in {**SETTINGS, 'jax_compilation_cache_dir': str(folder)}.items():
      jax.config.update(name, value)
  return folder


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
  """Lets jax compile what is run inside, instead of taking it from what it keeps; nothing is kept.

  What is in this process's memory is not compiled again.
  """
  before = jax.config.values['jax_enable_compilation_cache']
  try:
    jax.config.update('jax_enable_compilation_cache', False)
    of_jax.reset_cache()  # it remembers whether it is used
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    of_jax.reset_cache()


def _opened(path: str) -> tuple[CacheInterface, str]:
  return Programs(pathlib.Path(path), BOUND), path


def _allowed() -> pathlib.Path | None:
  if os.environ.get(VARIABLE, '').strip().lower() in OFF:
    return None
  values = jax.config.values
  if not values['jax_enable_compilation_cache'] or jaxlib.version.__version_info__ < EARLIEST:
    return None
  try:
    folder = files.cache_folder() / FOLDER
    if values['jax_compilation_cache_dir'] not in (None, '', str(folder)):
      return None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder if _is_own(folder) else None
  except (OSError, UserError):
    return None


def _is_own(folder: pathlib.Path) -> bool:
  """Returns whether nobody but this user, and the system's own, may write to a folder."""
  if not hasattr(os, 'geteuid'):
    # Windows has no bits for it; what is below a user's home is that user's.
    return folder.resolve().is_relative_to(pathlib.Path.home().resolve())
  found = folder.lstat()
  others = stat.S_IWGRP | stat.S_IWOTH
  alone = stat.S_ISDIR(found.st_mode) and not found.st_mode & others
  return alone and {found.st_uid, folder.parent.stat().st_uid} == {os.geteuid()}


def kept(folder: pathlib.Path) -> dict[pathlib.Path, os.stat_result]:
  """Returns the files of programs in a folder, and of unfinished ones, with the system's facts."""
  found = {}
  with contextlib.suppress(OSError), os.scandir(folder) as places:
    for place in filter(lambda place: _NAME.fullmatch(place.name), places):
      with contextlib.suppress(OSError):  # another process has removed it
        found[pathlib.Path(place.path)] = place.stat(follow_symlinks=False)
  return found


def remove(folder: pathlib.Path, bound: int = 0) -> int:
  """Removes the programs not used for longest, beyond so many bytes; returns how many are left."""
  found = kept(folder)
  left = sum(each.st_size for each in found.values())
  for place, each in sorted(found.items(), key=lambda item: item[1].st_mtime):
    if left <= bound:
      break
    with contextlib.suppress(OSError):
      place.unlink()
      left -= each.st_size
  return left


def _seal(place: pathlib.Path, program: bytes) -> bytes:
  """Returns what tells a damaged program, or one of another name."""
  return hashlib.blake2b(place.name.encode() + program, digest_size=_SEAL).digest()


def _instructions() -> str:
  """Returns what is known of this CPU's instructions; jax's keys know of them, too."""
  return '\n'.join(filter(_INSTRUCTIONS.fullmatch, processor.first_lines()))
