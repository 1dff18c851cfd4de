"""Folders of a store, worked on here: what is fetched, what goes up, and in which order."""

import itertools
import os
import pathlib
import threading
import time
import uuid

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digests, files, lease, store, working_copy
from patch_svdd_jax.system.batching import Bar
from patch_svdd_jax.system.store import Store
from patch_svdd_jax.system.working_copy import WorkingCopy


@pytest.fixture
def url(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return f'memory://{uuid.uuid4().hex}/run'


@pytest.fixture
def sent(monkeypatch):
  """Notes what is written and removed, in order."""
  found = []
  for verb in ('write', 'remove'):
    real = getattr(Store, verb)

    def note(self, name, *contents, verb=verb, real=real):
      found.append((verb, name.removeprefix('run/')))
      return real(self, name, *contents)

    monkeypatch.setattr(Store, verb, note)
  return found


def names(url):
  return set(Store(url).list())


def checkpoint(workdir, step):
  """A folder as orbax and `digests.seal` leave one."""
  folder = workdir / 'checkpoints' / str(step)
  (folder / 'encoder').mkdir(parents=True)
  # Written later than what is in deeper folders, and read before it.
  (folder / 'encoder' / 'z').write_bytes(b'numbers')
  (folder / 'a').write_bytes(b'numbers')
  (folder / 'commit_success.txt').write_bytes(b'')
  digests.seal(folder)
  return folder


def test_a_thread_uploads_where_a_bar_of_the_main_thread_has_kept_its_lock():
  done = []
  with Bar.get_lock():
    thread = threading.Thread(
      target=working_copy.each_at_once, args=(done.append, ['a'], 'Uploading'), daemon=True
    )
    thread.start()
    thread.join(10)
  assert done == ['a']
  assert not thread.is_alive()


def test_what_one_makes_another_finds(url):
  with working_copy.opened(url) as path:
    (path / 'deep').mkdir(parents=True)
    (path / 'deep' / 'a').write_bytes(b'a')
    (path / 'empty').write_bytes(b'')
    (path / f'b{files.UNFINISHED}').write_bytes(b'not yet')
    (path / files.LOCK).write_bytes(b'')
  assert names(url) == {'deep/a', 'empty'}
  assert not path.exists()
  with working_copy.opened(url) as again:
    assert again != path
    assert (again / 'deep' / 'a').read_bytes() == b'a'


def test_a_file_in_a_store_is_one(url):
  with working_copy.opened(f'{url}/x.json') as path:
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'1')
  with working_copy.opened(f'{url}/x.json') as path:
    assert path.read_bytes() == b'1'


def test_only_what_has_changed_goes_up(url, sent):
  with working_copy.opened(url) as path:
    copy = working_copy.of(path)
    path.mkdir()
    for name in 'abc':
      (path / name).write_bytes(b'1')
    copy.upload()
    sent.clear()
    with (path / 'a').open('ab') as file:
      file.write(b'2')
    files.write(path / 'b', b'3')
    (path / 'c').unlink()
    copy.upload()
    assert sorted(sent) == [('remove', 'c'), ('write', 'a'), ('write', 'b')]
    copy.upload()
    assert len(sent) == 3
  assert {name: Store(url).read(name) for name in names(url)} == {'a': b'12', 'b': b'3'}


def test_a_folder_that_is_read_only_is_never_written(url, sent):
  Store(url).write('a', b'1')
  sent.clear()
  with working_copy.opened(url) as path:
    assert (path / 'a').read_bytes() == b'1'
  assert sent == []


def test_what_says_that_all_is_there_goes_up_last_and_is_removed_first(url, sent):
  with working_copy.opened(url) as path:
    path.mkdir()
    copy = working_copy.of(path)
    (path / 'config.json').write_bytes(b'{}')
    time.sleep(0.01)
    folder = checkpoint(path, 2)
    copy.upload()
    order = [name for _, name in sent]
    assert order[0] == 'config.json'
    assert set(order[1:3]) == {'checkpoints/2/a', 'checkpoints/2/encoder/z'}
    assert order[3:] == [f'checkpoints/2/{name}' for name in working_copy.SEALS]
    sent.clear()
    checkpoint(path, 4)
    for each in sorted(folder.rglob('*'), reverse=True):
      each.rmdir() if each.is_dir() else each.unlink()
    copy.upload()
    removed = [name for verb, name in sent if verb == 'remove']
    assert sent.index(('write', 'checkpoints/4/digests.json')) < sent.index(('remove', removed[0]))
    assert {*removed[:2]} == {f'checkpoints/2/{name}' for name in working_copy.SEALS}
  assert {name for name in names(url) if name.startswith('checkpoints')} == {
    f'checkpoints/4/{name}' for name in ('a', 'encoder/z', *working_copy.SEALS)
  }


@pytest.mark.parametrize('count', range(5))
def test_however_few_requests_arrive_what_is_fetched_is_whole(url, count, monkeypatch):
  monkeypatch.setattr(store, 'PATIENCE', 0.0)
  real, made = Store.write, itertools.count()

  def write(self, name, contents):
    if next(made) >= count:
      raise UserError('away')
    real(self, name, contents)

  def work():
    with working_copy.opened(url) as path:
      checkpoint(path, 2)
      (path / 'metrics.jsonl').write_bytes(b'{}')

  with monkeypatch.context() as patched:
    patched.setattr(Store, 'write', write)
    patched.setattr(working_copy, 'PARALLEL', 1)
    with pytest.raises(UserError, match='away; what was made is kept in'):
      work()
  with working_copy.opened(url) as path:
    folder = path / 'checkpoints' / '2'
    assert folder.exists() == (count == 4)
    if count == 4:
      assert digests.damage(folder) is None


def test_what_could_not_go_up_is_kept_and_named(url, monkeypatch):
  def away(*_):
    raise UserError('cannot write it: away')

  def work():
    with working_copy.opened(url) as path:
      path.mkdir()
      (path / 'a').write_bytes(b'1')

  monkeypatch.setattr(Store, 'write', away)
  with pytest.raises(UserError) as raised:
    work()
  _, _, kept = str(raised.value).rpartition(' is kept in ')
  working_copy.sweep()
  assert (pathlib.Path(kept) / 'a').read_bytes() == b'1'


def test_what_is_younger_than_the_list_waits(url):
  with working_copy.opened(url) as path:
    path.mkdir()
    (path / 'a').write_bytes(b'1')
    later = time.time_ns() + 10**12
    os.utime(path / 'a', ns=(later, later))
    copy = working_copy.of(path)
    copy.upload(meanwhile=True)
    assert names(url) == set()
  assert names(url) == {'a'}


def test_a_thread_uploads_at_its_rhythm_and_when_woken(url, monkeypatch):
  monkeypatch.setattr(working_copy, 'RHYTHM', 0.02)
  with working_copy.opened(url) as path:
    path.mkdir()
    (path / 'a').write_bytes(b'1')
    deadline = time.monotonic() + 10
    while names(url) != {'a'}:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    monkeypatch.setattr(working_copy, 'RHYTHM', 600)
    time.sleep(0.05)
    (path / 'b').write_bytes(b'1')
    while names(url) != {'a', 'b'}:
      working_copy.wake(path)
      assert time.monotonic() < deadline
      time.sleep(0.01)


def test_a_store_that_is_away_for_a_while_gets_all_in_the_end(url, monkeypatch, caplog):
  monkeypatch.setattr(working_copy, 'RHYTHM', 0.01)
  real, is_away = Store.write, [True]

  def write(self, name, contents):
    if is_away[0]:
      raise UserError(f'cannot write {name}: away')
    real(self, name, contents)

  monkeypatch.setattr(Store, 'write', write)
  with working_copy.opened(url) as path:
    path.mkdir()
    (path / 'a').write_bytes(b'1')
    time.sleep(0.2)
    is_away[0] = False
  assert names(url) == {'a'}
  assert [record.getMessage() for record in caplog.records] == [
    'cannot write run/a: away; it is tried again until the end'
  ]


def test_copies_of_processes_that_were_killed_are_removed(url):
  with working_copy.opened(url) as path:
    base = working_copy.of(path).base
    left = base.with_name('0' * 32)
    left.mkdir()
    (left / '.owner').touch()
    working_copy.sweep()
    assert base.exists()
    assert not left.exists()


def test_messages_show_urls_and_nothing_else_does(url, tmp_path):
  assert f'{tmp_path / "a"}' == str(tmp_path / 'a')
  copy = WorkingCopy(url)
  with copy:
    inside = copy.path / 'checkpoints' / '2'
    assert (f'{copy.path}', f'{inside}') == (url, f'{url}/checkpoints/2')
    assert f'{inside.parent.absolute() / "x":>3}' == f'{url}/checkpoints/x'
    assert os.fspath(inside) == str(inside) == str(copy.base / 'run' / 'checkpoints' / '2')


def test_a_lock_is_a_lease_in_a_store_and_a_file_on_a_disk(url, tmp_path, monkeypatch):
  with working_copy.locked(tmp_path / 'run'):
    assert (tmp_path / 'run' / files.LOCK).exists()
  monkeypatch.setattr(lease, 'RENEWAL', 0.03)
  monkeypatch.setattr(lease, 'TERM', 0.3)
  with working_copy.opened(url) as path, working_copy.locked(path):
    assert names(url) == {'.lease/1.json'}
    with (
      working_copy.opened(url) as other,
      pytest.raises(UserError, match='is being written by another run'),
      working_copy.locked(other),
    ):
      pass
    with working_copy.opened(url) as other, working_copy.locked(other / 'eval'):
      pass
  assert names(url) == set()
