"""What a store can do, and what its errors become."""

import uuid

import fsspec
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import store
from patch_svdd_jax.system.store import Store


@pytest.fixture
def some(monkeypatch):
  """A store of this process, and no waiting."""
  monkeypatch.setattr(store, 'WAIT', 0.001)
  return Store(f'memory://{uuid.uuid4().hex}')


def test_objects_are_written_listed_read_and_removed(some, tmp_path):
  names = ['run/a.json', 'run/deep/b c.png', 'run/ü#?%20[1].png', 'run2/other']
  for index, name in enumerate(names):
    some.write(name, b'x' * index)
  assert {name: found.size for name, found in some.list().items()} == {
    name: index for index, name in enumerate(names)
  }
  assert some.list('run').keys() == {*names} - {'run2/other'}
  assert some.list('run/a.json').keys() == {'run/a.json'}
  assert some.list('nothing') == {}
  assert some.read('run/deep/b c.png') == b'x'
  some.get('run/deep/b c.png', tmp_path / 'new' / 'b', size=1)
  assert (tmp_path / 'new' / 'b').read_bytes() == b'x'
  some.remove('run/a.json')
  some.remove('run/a.json')
  assert 'run/a.json' not in some.list()


def test_what_was_replaced_has_another_identity(some):
  some.write('a', b'1')
  before = some.list()
  assert some.list() == before
  some.write('a', b'2')
  assert some.list() != before


def test_an_object_is_created_once(some):
  assert some.create('lease', b'mine')
  assert not some.create('lease', b'yours')
  assert some.read('lease') == b'mine'
  # The answer to one's own creation may have been lost.
  assert some.create('lease', b'mine')


class Failing:
  """A file system that raises an error so many times."""

  def __init__(self, error, times):
    self.error, self.left, self.calls = error, times, 0

  def cat_file(self, path):
    self.calls += 1
    if self.calls <= self.left:
      raise self.error
    return path.encode()


class HttpError(Exception):
  def __init__(self, code):
    super().__init__(f'answer {code}\nand more')
    self.code = code


@pytest.mark.parametrize(
  'error', [OSError('reset'), TimeoutError(), HttpError(503), HttpError(429)]
)
def test_what_passes_is_tried_again(some, error, monkeypatch):
  monkeypatch.setattr(some, '_opened', (Failing(error, 3), '/root'))
  assert some.read('a') == b'/root/a'


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (PermissionError('not yours'), 'not yours'),
    (OSError('Forbidden: url'), 'Forbidden'),
    (HttpError(401), 'answer 401$'),
    (FileNotFoundError('b/a'), r'no such bucket or object \(b/a\)'),
  ],
)
def test_what_lasts_is_said_at_once_in_one_line(some, error, words, monkeypatch):
  failing = Failing(error, 9)
  monkeypatch.setattr(some, '_opened', (failing, '/root'))
  with pytest.raises(UserError, match=rf'^cannot read {some.url}/a: .*{words}'):
    some.read('a')
  assert failing.calls == 1


def test_attempts_are_bounded(some, monkeypatch):
  monkeypatch.setattr(store, 'PATIENCE', 0.02)
  failing = Failing(OSError('away'), 10**9)
  monkeypatch.setattr(some, '_opened', (failing, '/root'))
  with pytest.raises(UserError, match='away'):
    some.read('a')
  assert 1 < failing.calls < 9


def test_errors_of_this_program_stay_what_they_are(some, monkeypatch):
  monkeypatch.setattr(some, '_opened', (Failing(TypeError('ours'), 1), '/root'))
  with pytest.raises(TypeError, match='ours'):
    some.read('a')


def test_an_object_that_grew_since_it_was_listed_is_read_as_it_is_now(some, tmp_path):
  some.write('a', b'four')
  [found] = some.list().values()
  some.write('a', b'longer')
  some.get('a', tmp_path / 'a', found.size)
  assert (tmp_path / 'a').read_bytes() == b'longer'


def test_a_truncated_answer_is_no_file(some, tmp_path, monkeypatch):
  monkeypatch.setattr(store, 'PATIENCE', 0.02)
  some.write('a', b'four')
  monkeypatch.setattr(some, 'list', lambda _: {'a': store.Found(5, '')})
  with pytest.raises(UserError, match='4 of 5 bytes arrived'):
    some.get('a', tmp_path / 'a', size=5)
  assert not list(tmp_path.iterdir())


def test_a_library_that_is_missing_is_named(monkeypatch):
  def missing(*_, **__):
    raise ImportError('Please install gcsfs')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', missing)
  with pytest.raises(UserError, match=r"pip install 'patch_svdd_jax\[gcs\]'"):
    Store('gs://bucket/run').list()


@pytest.mark.parametrize(
  'url', ['gs://', 'gs:///', 'gs://bucket', 'gs://bucket/', 'memory://a/..', 'gs://b/a\0']
)
def test_a_url_must_name_something(url):
  with pytest.raises(UserError, match='name a folder or file in a bucket'):
    store.split_url(url)
