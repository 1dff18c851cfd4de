"""What object stores and fsspec's libraries for them do, on which runs in buckets rely."""

import concurrent.futures
import hashlib
import threading

import fsspec
import pytest

from tests.support import stores

NAMES = ['a b', 'ü', 'u\u0308', 'a#1', 'a?b', 'a%20b', 'a+b', 'a[1]', '*', '{x}', 'a&b=c', 'a\\b']


@pytest.fixture(params=['google_store', 'amazon_store', None])
def place(request):
  """An empty folder in each kind of store."""
  if request.param:
    return f'{request.getfixturevalue(request.param).place}/{request.node.name}'
  return f'memory://{request.node.name}'


def opened(place):
  return fsspec.url_to_fs(place, use_listings_cache=False)


def test_one_of_many_creates_an_object(place):
  system, folder = opened(place)
  ready = threading.Barrier(4)

  def create(number):
    ready.wait()
    try:
      system.pipe_file(f'{folder}/lease', b'%d' % number, mode='create')
    except FileExistsError:
      return False
    return True

  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    made = list(threads.map(create, range(4)))
  assert sum(made) == 1
  assert system.cat_file(f'{folder}/lease') == b'%d' % made.index(True)


@pytest.mark.parametrize('size', [0, 1, 12_000_000])
def test_files_of_any_size_arrive(place, tmp_path, size):
  system, folder = opened(place)
  content = hashlib.shake_128(b'any').digest(size)
  (tmp_path / 'file').write_bytes(content)
  system.put_file(str(tmp_path / 'file'), f'{folder}/file')
  system.get_file(f'{folder}/file', str(tmp_path / 'back'))
  assert (tmp_path / 'back').read_bytes() == content
  assert {name.lstrip('/'): info['size'] for name, info in system.find(folder, detail=True).items()}


def test_any_name_is_kept(place, tmp_path):
  system, folder = opened(place)
  for name in NAMES:
    (tmp_path / 'file').write_text(name)
    system.put_file(str(tmp_path / 'file'), f'{folder}/{name}')
  assert sorted(path.removeprefix(f'{folder}/') for path in system.find(folder)) == sorted(NAMES)
  for name in NAMES:
    system.get_file(f'{folder}/{name}', str(tmp_path / 'file'))
    assert (tmp_path / 'file').read_text() == name
    system.rm_file(f'{folder}/{name}')
  assert system.find(folder) == []


def test_what_others_write_is_seen_at_once(place):
  system, folder = opened(place)
  other, _ = fsspec.url_to_fs(place, use_listings_cache=False, skip_instance_cache=True)
  for content in (b'1', b'12'):
    other.pipe_file(f'{folder}/file', content)
    [info] = system.find(folder, detail=True).values()
    assert info['size'] == len(content)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['google_store', 'amazon_store'])
@pytest.mark.parametrize('fault', [503, 429, 'cut', 'lost', 'truncated'])
def test_one_fault_is_repaired_by_the_library(request, monkeypatch, kind, fault):
  store = request.getfixturevalue(kind)
  with stores.Proxy(store) as proxy:
    for name, value in proxy.variables().items():
      monkeypatch.setenv(name, value)
    system, folder = fsspec.url_to_fs(
      f'{store.place}/{request.node.name}', use_listings_cache=False, skip_instance_cache=True
    )
    proxy.fault = lambda method, path, number: None if number else fault
    system.pipe_file(f'{folder}/file', b'content')
    assert system.cat_file(f'{folder}/file') == b'content'
    assert len(proxy.seen) >= 2 + (fault != 'truncated')


def test_a_store_that_is_stopped_keeps_its_objects(google_store):
  system, folder = opened(f'{google_store.place}/kept')
  system.pipe_file(f'{folder}/file', b'content')
  before = system.info(f'{folder}/file')['generation']
  google_store.stop()
  google_store.start()
  assert system.cat_file(f'{folder}/file') == b'content'
  assert system.info(f'{folder}/file')['generation'] == before
  with pytest.raises(FileExistsError):
    system.pipe_file(f'{folder}/file', b'other', mode='create')
