"""Object stores, as fsspec opens them: `gs://bucket/folder`, `s3://...`, `memory://...`.

An object appears whole when its upload ends, can be created only if it is absent, and can be
replaced and removed. There is nothing else: no rename, no lock, no appending.
"""

import contextlib
import errno
import logging
import os
import pathlib
import posixpath
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files

# Seconds in which what fails is tried again, by this room or by the store's library, and those
# before the second attempt; each further one waits twice as long.
PATIENCE, WAIT = 60.0, 0.5
# Bytes up to which an object is fetched by one request, through memory.
SMALL = 64 * 2**20
# What installs the libraries that fsspec asks for.
EXTRAS = {'gs': 'gcs', 'gcs': 'gcs', 's3': 's3', 's3a': 's3'}
# Errors that another attempt would meet again, of their reader's making.
_LASTING = (
  FileNotFoundError,
  PermissionError,
  IsADirectoryError,
  NotADirectoryError,
  ImportError,
  ValueError,
  NotImplementedError,
)
# Errors of this program, which keep their traceback.
_OURS = (TypeError, AttributeError, NameError, LookupError, AssertionError, MemoryError)
# HTTP statuses that ask for another attempt.
_BUSY = (408, 429)

Result = TypeVar('Result')


class Found(NamedTuple):
  """An object of a listing.

  Attributes:
    size: in bytes.
    identity: a text that is another one as soon as the object is replaced.
  """

  size: int
  identity: str


def is_url(text: object) -> bool:
  """Returns whether a text names something in a store, and no path of this machine."""
  return isinstance(text, str) and '://' in text


def split_url(url: str) -> tuple[str, str]:
  """Returns the folder that a URL lies in, and its name there.

  Raises:
    UserError: it names no more than a bucket.
  """
  scheme, _, place = url.rstrip('/').partition('://')
  folder, _, name = place.rpartition('/')
  parent = f'{scheme}://{folder}'
  if not (folder and name) or '\0' in url or name in ('.', '..'):
    raise UserError(f'{url!r}: name a folder or file in a bucket, as gs://bucket/folder')
  return parent, name


class Store:
  """The objects below a URL, by their names relative to it.

  What fails is tried again for a minute.

  Raises:
    UserError: by each call, where the store refuses it or cannot be reached.
  """

  def __init__(self, url: str):
    """Opens nothing yet."""
    self.url = url.rstrip('/')
    self._opened: tuple[Any, str] | None = None

  def list(self, folder: str = '') -> dict[str, Found]:
    """Returns all objects of a folder, at any depth, or the one of that name."""
    place = self._place(folder) if folder else self._root

    def find() -> dict[str, Any]:
      try:
        found: dict[str, Any] = self._fs.find(place, detail=True)
      except FileNotFoundError:  # some stores say so of a folder without objects
        return {}
      return found

    found = {}
    for path, info in self._attempt('list', folder, find).items():
      name = posixpath.relpath(path.lstrip('/'), self._root.lstrip('/') or '.')
      inside = not folder or name == folder or name.startswith(f'{folder}/')
      # Consoles make empty objects that stand for folders.
      if inside and not path.endswith('/') and info.get('type') != 'directory':
        found[name] = Found(int(info.get('size') or 0), _identity(info))
    return found

  def get(self, name: str, path: pathlib.Path, size: int | None = None) -> None:
    """Writes an object to a file, which appears whole; its folder is made where it is missing.

    Args:
      name: of the object.
      path: of the file.
      size: bytes that it had when it was listed; another number must be what it has now.
    """

    def get() -> None:
      with files.whole(path) as unfinished:
        if size is not None and size <= SMALL:
          unfinished.write_bytes(self._fs.cat_file(self._place(name)))
        else:  # some libraries ask three times for it
          self._fs.get_file(self._place(name), str(unfinished))
        arrived = unfinished.stat().st_size
        if size not in (None, arrived) and arrived != (now := self._size(name)):
          raise ConnectionError(f'{arrived} of {now} bytes arrived')

    self._attempt('read', name, get)

  def read(self, name: str) -> bytes:
    """Returns an object's contents."""

    def read() -> bytes:
      contents: bytes = self._fs.cat_file(self._place(name))
      return contents

    return self._attempt('read', name, read)

  def write(self, name: str, contents: bytes) -> None:
    """Writes an object, in place of what is there."""
    self._attempt('write', name, lambda: self._pipe(name, contents, 'overwrite'))

  def create(self, name: str, contents: bytes) -> bool:
    """Writes an object unless there is one of that name; returns whether it did."""

    def create() -> bool:
      try:
        self._pipe(name, contents, 'create')
      except FileExistsError:
        # An attempt whose answer was lost may have written it; whose it is may remove it meanwhile.
        with contextlib.suppress(FileNotFoundError):
          return bool(self._fs.cat_file(self._place(name)) == contents)
        return False
      return True

    return self._attempt('write', name, create)

  def remove(self, name: str) -> None:
    """Removes an object, which may be gone already."""

    def remove() -> None:
      with contextlib.suppress(FileNotFoundError):
        self._fs.rm_file(self._place(name))

    self._attempt('remove', name, remove)

  def _size(self, name: str) -> int | None:
    found = self.list(name).get(name)
    return found.size if found else None

  def _pipe(self, name: str, contents: bytes, mode: str) -> None:
    self._fs.pipe_file(self._place(name), contents, mode=mode)

  def _attempt(self, verb: str, name: str, work: Callable[[], Result]) -> Result:
    end, wait = time.monotonic() + PATIENCE, WAIT
    while True:
      try:
        return work()
      except (UserError, *_OURS):
        raise
      # Whatever the store's library raises: each has errors of its own.
      except Exception as error:
        if _is_lasting(error) or time.monotonic() + wait > end:
          url = f'{self.url}/{name}' if name else self.url
          raise UserError(f'cannot {verb} {url}: {self._reason(error)}') from error
      time.sleep(wait * random.uniform(0.75, 1.25))  # of several, not all at once
      wait *= 2

  def _reason(self, error: Exception) -> str:
    scheme = self.url.partition('://')[0]
    if isinstance(error, ImportError) and scheme in EXTRAS:
      return f"pip install 'patch_svdd_jax[{EXTRAS[scheme]}]'"
    text = str(error).strip().partition('\n')[0]
    if isinstance(error, FileNotFoundError):
      return f'there is no such bucket or object ({text})'
    return text or type(error).__name__

  @property
  def _fs(self) -> Any:
    return self._open()[0]

  @property
  def _root(self) -> str:
    return str(self._attempt('open', '', self._open)[1])

  def _place(self, name: str) -> str:
    return f'{self._root}/{name}'

  def _open(self) -> tuple[Any, str]:
    if self._opened is None:
      # By default gcsfs asks before each operation what kind of bucket it is, through gRPC.
      os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
      # It logs each request that fails with a traceback, and raises besides.
      logging.getLogger('gcsfs').disabled = True
      import fsspec  # takes a tenth of a second, and only those with buckets need it

      # What other processes do must be seen.
      self._opened = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **self._options())
    return self._opened

  def _options(self) -> dict[str, Any]:
    """Returns what is set for this kind of store: gcsfs waits five minutes for a silent server."""
    if self.url.partition('://')[0] not in ('gs', 'gcs'):
      return {}
    with contextlib.suppress(ImportError):  # gcsfs's own dependency: it says itself what is missing
      import aiohttp

      return {'requests_timeout': aiohttp.ClientTimeout(sock_connect=10, sock_read=60)}
    return {}


def _identity(info: dict[str, Any]) -> str:
  """Returns what a store tells contents apart by: its generation, a digest, or else the time."""
  keys = ('generation', 'md5Hash', 'ETag', 'etag', 'LastModified', 'updated', 'created', 'mtime')
  return ' '.join(str(info[key]) for key in ('size', *keys) if key in info)


def _is_lasting(error: Exception) -> bool:
  status = getattr(error, 'code', None) or getattr(error, 'status', None)
  if isinstance(status, int | str) and str(status).isdecimal():
    return 400 <= int(status) < 500 and int(status) not in _BUSY
  if getattr(error, 'errno', None) == errno.EINVAL or 'Credentials' in type(error).__name__:
    return True
  # As gcsfs says it of 403.
  is_forbidden = str(error).startswith('Forbidden')
  return is_forbidden or (isinstance(error, _LASTING) and not isinstance(error, ConnectionError))
