"""Two runs and one folder of a store."""

import json
import os
import signal
import subprocess
import time
import uuid

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import lease
from patch_svdd_jax.system.lease import Lease, LostError
from patch_svdd_jax.system.store import Store


@pytest.fixture
def url(monkeypatch):
  """Yields a folder whose leases are renewed every 30 ms; ends their threads at the end."""
  monkeypatch.setattr(lease, 'RENEWAL', 0.03)
  monkeypatch.setattr(lease, 'TERM', 0.3)
  taken = []
  begun = Lease.take
  monkeypatch.setattr(Lease, 'take', lambda self: (taken.append(self), begun(self)))
  yield f'memory://{uuid.uuid4().hex}/run'
  # A thread that outlives its test finds its lease lost and ends this process.
  for each in taken:
    each._ended.set()  # noqa: SLF001
    if each._thread.ident:  # noqa: SLF001
      each._thread.join()  # noqa: SLF001


def foreign(url, number=1, **contents):
  """Writes a lease of a run on another machine, which does not renew it."""
  about = {'owner': 'me@far, process 7', 'since': 'noon', 'machine': 'far', 'process': 7}
  Store(url).write(f'.lease/{number}.json', json.dumps(about | contents).encode())


def test_it_is_given_to_one_at_a_time_and_leaves_nothing(url):
  first = Lease(url)
  first.take()
  with pytest.raises(UserError, match=rf'^{url} is being written by another run \(.*, since '):
    Lease(url).take()
  first.check()
  first.release()
  assert Store(url).list() == {}
  second = Lease(url)
  second.take()
  second.release()


def test_one_that_is_not_renewed_is_taken_over(url, capsys):
  foreign(url, 4)
  start = time.monotonic()
  taken = Lease(url)
  taken.take()
  assert time.monotonic() - start >= lease.TERM
  assert Store(url).list().keys() == {'.lease/5.json'}
  assert f'{url}: taken over from me@far, process 7, since noon, which has ended' in (
    capsys.readouterr().err
  )
  taken.release()


def test_one_of_a_process_of_this_machine_that_has_ended_is_taken_over_at_once(url):
  ended = subprocess.Popen(['true'])
  ended.wait()
  foreign(url, machine=lease._machine(), process=ended.pid)  # noqa: SLF001
  start = time.monotonic()
  taken = Lease(url)
  taken.take()
  assert time.monotonic() - start < lease.TERM / 2
  taken.release()


def test_a_garbled_one_is_one_that_is_not_renewed(url):
  Store(url).write('.lease/1.json', b'{"own')
  taken = Lease(url)
  taken.take()
  assert '.lease/2.json' in Store(url).list()
  taken.release()


def test_an_owner_finds_out_that_another_took_over_and_is_told_to_end(url, monkeypatch):
  told = []
  monkeypatch.setattr(os, 'kill', lambda *signals: told.append(signals))
  owner = Lease(url)
  owner.take()
  foreign(url, 2)
  time.sleep(lease.RENEWAL)
  with pytest.raises(LostError, match='was taken over by another run'):
    owner.check()
  owner._thread.join(5)  # noqa: SLF001
  assert told == [(os.getpid(), signal.SIGTERM)]


def test_an_owner_whose_last_renewal_arrives_after_the_other_run_has_ended(url, monkeypatch):
  monkeypatch.setattr(os, 'kill', lambda *_: None)
  owner = Lease(url)
  owner.take()
  owner._ended.set()  # noqa: SLF001
  owner._thread.join()  # noqa: SLF001
  time.sleep(lease.TERM)
  other = Lease(url)
  foreign(url)  # as it is written by another machine, which is not renewed
  other.take()
  other.release()
  Store(url).write('.lease/1.json', owner._encoded())  # noqa: SLF001
  time.sleep(lease.RENEWAL)
  with pytest.raises(LostError, match='was taken over by another run'):
    owner.check()
  third = Lease(url)
  third.take()
  assert Store(url).list().keys() == {'.lease/3.json'}
  third.release()


@pytest.mark.parametrize('after', [{}, {1: 'another'}, {1: 'another', 2: 'a third'}])
def test_an_owner_finds_out_that_another_took_over_and_has_ended_since(url, monkeypatch, after):
  monkeypatch.setattr(os, 'kill', lambda *_: None)
  owner = Lease(url)
  owner.take()
  Store(url).remove('.lease/1.json')
  for number, run in after.items():
    foreign(url, number, run=run)
  time.sleep(lease.RENEWAL)
  with pytest.raises(LostError, match='was taken over by another run'):
    owner.check()
