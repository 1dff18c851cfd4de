"""Keeps two runs from one folder of a store, which has no locks.

A lease is an object `.lease/<number>.json` that its owner renews. Whoever creates the next number,
which the store lets one alone do, has the folder from then on: nobody takes over what was renewed,
for all see the same newest one, and an owner that finds a newer number than its own has lost it.
One that followed another stays when it is released: an owner that stood still may yet renew its own
with its last request when that run has ended, and must find a newer one.
"""

import getpass
import json
import math
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psutil

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import signals
from patch_svdd_jax.system.batching import Bar
from patch_svdd_jax.system.store import Store

FOLDER = '.lease'
# Seconds: an owner renews so often, and one that has not for so long may be taken over from.
RENEWAL, TERM = 15.0, 60.0


class LostError(UserError):
  """Another run has taken the folder over."""


class _Newest(NamedTuple):
  number: int
  contents: dict[str, Any]

  @property
  def owner(self) -> str:
    return f'{self.contents.get("owner", "another run")}, since {self.contents.get("since", "?")}'


class Lease:
  """The lease of one folder, for this process; renewed by a thread until it is released."""

  def __init__(self, url: str):
    """Takes nothing yet.

    Args:
      url: of the folder.
    """
    self._url = url
    self._store = Store(f'{url}/{FOLDER}')
    self._number = 0
    self._contents: dict[str, Any] = {
      'owner': f'{_user()}@{socket.gethostname()}, process {os.getpid()}',
      'since': _now(),
      'run': uuid.uuid4().hex,
      'machine': _machine(),
      'process': os.getpid(),
    }
    self._checked = -math.inf
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._renew, daemon=True, name=f'lease of {url}')

  def take(self) -> None:
    """Takes the folder, from a run that has ended or no longer renews its lease, too.

    Raises:
      UserError: another run has it.
    """
    while True:
      found = self._newest()
      if found:
        is_released = found.contents.get('released')
        if not is_released and self._is_renewed(found):
          raise UserError(
            f'{self._url} is being written by another run ({found.owner}): wait for its end, or '
            'name another folder'
          )
        if not is_released:
          print(f'{self._url}: taken over from {found.owner}, which has ended', file=sys.stderr)
      self._number = found.number + 1 if found else 1
      if self._store.create(self._name(self._number), self._encoded()):
        break
    for name in self._store.list():
      if _number(name) < self._number:
        self._store.remove(name)
    self._thread.start()

  def check(self) -> None:
    """Makes sure that no other run has taken the folder over, unless it just did.

    Raises:
      LostError: one has.
    """
    now = _seconds()
    if now - self._checked < RENEWAL / 2:
      return
    # Others that took over may have ended since, and their numbers may be given once more.
    newest = self._newest()
    if newest is None or newest.contents.get('run') != self._contents['run']:
      raise LostError(
        f'{self._url} was taken over by another run, as this one could not renew its lease: it '
        'writes nothing more there'
      )
    self._checked = now

  def release(self) -> None:
    """Lets others take the folder at once."""
    self._ended.set()
    self._thread.join()
    if self._number > 1:
      self._contents['released'] = True
      self._store.write(self._name(self._number), self._encoded())
    else:
      self._store.remove(self._name(self._number))

  def _is_renewed(self, found: _Newest) -> bool:
    """Waits until a lease has become another one, or its term is over; returns which it was."""
    if _has_ended(found.contents):
      return False
    polls = range(round(TERM / RENEWAL) * 5)
    for _ in Bar(polls, desc=f'Waiting for a sign of {found.owner}', delay=1, leave=False):
      time.sleep(TERM / len(polls))
      if (now := self._newest()) != found:
        return now is not None
    return False

  def _renew(self) -> None:
    while not self._ended.wait(RENEWAL):
      try:
        self.check()
        self._store.write(self._name(self._number), self._encoded())
      except LostError:
        # As if it were preempted: what it has is saved, here, and it ends.
        signals.terminate()
        return
      except UserError:
        continue  # the store is away; once it is back, check says whether another run came first

  def _newest(self) -> _Newest | None:
    names = [name for name in self._store.list() if _number(name)]
    if not names:
      return None
    name = max(names, key=_number)
    try:
      contents = json.loads(self._store.read(name))
    except ValueError:
      contents = {}
    except UserError as error:
      if isinstance(error.__cause__, FileNotFoundError):  # released since
        return self._newest()
      raise
    return _Newest(_number(name), contents if isinstance(contents, dict) else {})

  def _encoded(self) -> bytes:
    return json.dumps(self._contents | {'renewed': _now()}).encode()

  def _name(self, number: int) -> str:
    return f'{number}.json'


def _number(name: str) -> int:
  stem = name.removesuffix('.json')
  return int(stem) if stem.isdecimal() else 0


def _now() -> str:
  return datetime.now(UTC).isoformat(timespec='microseconds')


def _seconds() -> float:
  """Returns the time of a clock that nobody sets, and that goes on while the machine stands still.

  On Windows and macOS it may stand still, too.
  """
  if sys.platform == 'linux':
    return time.clock_gettime(time.CLOCK_BOOTTIME)
  return time.monotonic()


def _user() -> str:
  try:
    return getpass.getuser()
  except (OSError, KeyError, ImportError):  # a number without a name, or no variable has it
    return str(psutil.Process().username())


def _machine() -> str:
  """Returns what tells this machine's numbers of processes from those of others, if anything."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()
    return f'{boot} {pathlib.Path("/proc/self/ns/pid").readlink()}'
  except OSError:
    return ''


def _has_ended(contents: dict[str, Any]) -> bool:
  """Returns whether an owner was a process of this machine that is no longer there."""
  if not contents.get('machine') or contents['machine'] != _machine():
    return False
  try:
    return not psutil.pid_exists(int(contents['process']))
  except (KeyError, TypeError, ValueError):
    return False
