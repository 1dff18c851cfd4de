"""Compiled programs on disk: read by the next process, whole, within a bound, or done without."""

import collections
import errno
import json
import os
import pathlib
import resource
import subprocess
import sys

import jax
import pytest
from jax._src import compilation_cache as of_jax

from patch_svdd_jax.system import compilation_cache, files, processor
from patch_svdd_jax.system.compilation_cache import Programs

ROOT = pathlib.Path(__file__).parents[2]
NAMES = (*compilation_cache.SETTINGS, 'jax_compilation_cache_dir', 'jax_enable_compilation_cache')
# Prints how many programs were found, how many were not, a result, and the folder.
CODE = """
import collections, json
import jax
from patch_svdd_jax.system import compilation_cache
folder = compilation_cache.enable()
found = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: found.update([event.split('/')[-1]]))
x = jax.numpy.arange(12.).reshape(3, 4)
result = jax.jit(lambda x: jax.numpy.sort(x @ x.T / 7).sum())(x)
print(json.dumps([found['cache_hits'], found['compile_requests_use_cache'], result.item(),
                  folder and str(folder)]))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  monkeypatch.delenv(compilation_cache.VARIABLE)
  return files.cache_folder() / compilation_cache.FOLDER


@pytest.fixture
def unset(monkeypatch):
  """Settings of jax as they are where nobody has set them; what a test sets does not last."""
  before = {name: jax.config.values[name] for name in NAMES}
  monkeypatch.setattr(of_jax, 'get_file_cache', of_jax.get_file_cache)
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'programs'


@pytest.fixture
def programs(folder):
  return Programs(folder, 2**20)


def start():
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', CODE],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(process):
  """What it printed on standard output, and nothing else anywhere."""
  printed, errors = process.communicate()
  assert (process.returncode, errors) == (0, '')
  return json.loads(printed)


def names(folder):
  return sorted(place.name for place in folder.iterdir())


def test_the_second_process_compiles_nothing_and_finds_the_same(home):
  hits, asked, first, folder = end(start())
  assert (hits, folder) == (0, str(home))
  assert asked > 2
  assert len(names(home)) == asked
  assert end(start()) == [asked, asked, first, folder]
  for place in home.iterdir():  # a power cut leaves such files
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
  assert end(start()) == [0, asked, first, folder]
  assert end(start()) == [asked, asked, first, folder]


def test_processes_at_once_find_the_same(home):
  processes = [start() for _ in range(2)]
  found = [end(process) for process in processes]
  assert len({tuple(each[1:]) for each in found}) == 1
  assert end(start())[0] == found[0][1]
  assert not list(home.glob(f'*{files.UNFINISHED}'))


@pytest.mark.parametrize('value', ['off', ' Off', '0', 'false', 'NO'])
def test_the_environment_turns_it_off(home, unset, monkeypatch, value):
  monkeypatch.setenv(compilation_cache.VARIABLE, value)
  assert compilation_cache.enable() is None
  assert not home.exists()


@pytest.mark.parametrize(
  ('name', 'value'),
  [('jax_enable_compilation_cache', False), ('jax_compilation_cache_dir', '/of/the/user')],
)
def test_what_jax_was_told_stays(home, unset, name, value):
  jax.config.update(name, value)
  before = dict(jax.config.values)
  assert compilation_cache.enable() is None
  assert dict(jax.config.values) == before
  assert not home.exists()


@pytest.mark.parametrize('value', ['', 'on', '1'])
def test_it_is_on_otherwise(home, unset, monkeypatch, value):
  monkeypatch.setenv(compilation_cache.VARIABLE, value)
  assert compilation_cache.enable() == home
  assert jax.config.values['jax_compilation_cache_dir'] == str(home)
  assert home.stat().st_mode & 0o777 == 0o700
  assert compilation_cache.enable() == home


def make_file(home, monkeypatch):
  home.parent.mkdir(parents=True)
  home.touch()


def make_link(home, monkeypatch):
  home.parent.mkdir(parents=True)
  elsewhere = home.parent.parent / 'elsewhere'
  elsewhere.mkdir(mode=0o700)
  home.symlink_to(elsewhere)


def open_to_all(home, monkeypatch):
  home.mkdir(parents=True)
  home.chmod(0o777)


def open_to_the_group(home, monkeypatch):
  home.mkdir(parents=True)
  home.chmod(0o770)


def of_another(home, monkeypatch):
  user = os.geteuid()
  monkeypatch.setattr('os.geteuid', lambda: user + 1)


def without_home(home, monkeypatch):
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', lambda number: {}[number])


def under_a_file(home, monkeypatch):
  home.parent.parent.mkdir(parents=True)
  home.parent.touch()


def refuse(*_, **__):
  raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def read_only(home, monkeypatch):
  monkeypatch.setattr('pathlib.Path.mkdir', refuse)


def of_an_early_jaxlib(home, monkeypatch):
  monkeypatch.setattr('jaxlib.version.__version_info__', (0, 10, 1))


@pytest.mark.parametrize(
  'spoil',
  [
    make_file,
    make_link,
    open_to_all,
    open_to_the_group,
    of_another,
    without_home,
    under_a_file,
    read_only,
    of_an_early_jaxlib,
  ],
)
def test_a_folder_that_is_not_this_users_alone_is_done_without(home, unset, monkeypatch, spoil):
  spoil(home, monkeypatch)
  assert compilation_cache.enable() is None
  assert jax.config.values['jax_compilation_cache_dir'] is None


def test_importing_changes_no_setting_of_jax():
  code = 'import jax; before = dict(jax.config.values); import patch_svdd_jax.api; '
  code += 'from patch_svdd_jax.system import compilation_cache; print(before == jax.config.values)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout == 'True\n'


def test_no_bit_that_changes_gives_a_wrong_program(programs, folder):
  programs.put('key', b'a program')
  [place] = folder.iterdir()
  whole = place.read_bytes()
  damaged = [whole[:length] for length in range(len(whole))]
  for index in range(8 * len(whole)):
    changed = bytearray(whole)
    changed[index // 8] ^= 1 << index % 8
    damaged.append(bytes(changed))
  for content in damaged:
    place.write_bytes(content)
    assert programs.get('key') is None
  programs.put('key', b'a program')
  assert programs.get('key') == b'a program'
  place.rename(programs.place('other'))
  assert programs.get('other') is None


def test_each_cpu_has_its_own(programs, folder, tmp_path, monkeypatch):
  programs.put('key', b'a program')
  before = processor.CPUINFO.read_text()
  monkeypatch.setattr(processor, 'CPUINFO', tmp_path / 'cpuinfo')
  processor.CPUINFO.write_text(before.replace('MHz', 'MHz\t: 1'))
  assert Programs(folder, 2**20).get('key') == b'a program'
  processor.CPUINFO.write_text('flags : avx512f\nmodel : 2\n\nflags : avx2\n')
  other = Programs(folder, 2**20)
  assert other.get('key') is None
  other.put('key', b'another program')
  assert (programs.get('key'), other.get('key')) == (b'a program', b'another program')
  processor.CPUINFO.unlink()
  assert Programs(folder, 2**20).get('key') is None


def test_those_not_used_for_longest_make_room(tmp_path):
  folder, bound = tmp_path / 'programs', 80_000
  programs = Programs(folder, bound)
  used, stamps = collections.Counter(), iter(range(10**9, 10**9 + 10**6))

  def stamp(key):
    second = next(stamps)
    os.utime(programs.place(key), (second, second))

  for number in range(100):
    key = str(number)
    programs.put(key, bytes(2000))
    stamp(key)
    if programs.get('7'):
      used['7'] += 1
      stamp('7')
    assert sum(place.stat().st_size for place in folder.iterdir()) <= bound
  assert used['7'] == 93  # from when it was written: it is never that not used for longest
  assert programs.get('99')
  assert programs.get('1') is None
  # What another process has written counts, and what one left unfinished.
  (folder / f'{"0" * 32}{files.UNFINISHED}').write_bytes(bytes(bound))
  Programs(folder, bound).put('new', bytes(2000))
  Programs(folder, bound).put('large', bytes(bound // 8))
  assert sum(place.stat().st_size for place in folder.iterdir()) <= bound
  assert Programs(folder, bound).get('new')


def test_what_is_not_a_program_stays(programs, folder):
  programs.put('key', b'a program')
  (folder / 'notes.txt').write_text('mine')
  assert len(compilation_cache.kept(folder)) == 1
  assert compilation_cache.remove(folder) == 0
  assert names(folder) == ['notes.txt']


def test_a_program_that_cannot_be_written_is_not_kept(programs, folder, monkeypatch):
  programs.put('key', b'a program')
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
  try:
    programs.put('large', bytes(2000))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert programs.get('large') is None
  assert len(names(folder)) == 1
  monkeypatch.setattr('os.utime', refuse)
  assert programs.get('key') == b'a program'  # of a read-only disk


def test_two_writers_of_one_program(programs, folder, monkeypatch):
  other = Programs(folder, 2**20)
  write = pathlib.Path.write_bytes

  def write_between(self, content):
    monkeypatch.setattr('pathlib.Path.write_bytes', write)
    other.put('key', b'a program')
    assert other.get('key') == b'a program'
    return write(self, content)

  monkeypatch.setattr('pathlib.Path.write_bytes', write_between)
  programs.put('key', b'a program')
  assert programs.get('key') == b'a program'
  assert len(names(folder)) == 1
