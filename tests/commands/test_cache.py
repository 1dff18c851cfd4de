"""`cache`: what is prepared is listed, and removed where nothing uses it."""

import json
import pathlib

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.data import entries, folder, prepared
from patch_svdd_jax.system import compilation_cache, digest_cache, files
from tests.support import categories


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  return files.cache_folder()


def prepare(root, place, seed):
  """Prepares a folder, and keeps it in use while the context lasts."""
  categories.write(root, seed)
  return prepared.prepare(lambda at: folder.Folder(folder=root, data_dir=at), place, 2.0**40)


def run(capsys, *arguments):
  capsys.readouterr()  # the bars of what was prepared before
  status = main(['cache', *map(str, arguments)])
  captured = capsys.readouterr()
  return status, captured.out, captured.err


def test_an_empty_cache(home, capsys):
  for arguments in ([], ['--clear']):
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, '')
    assert out == (
      f'{home}: 0 entries, 0.00 MB; above 21,475 MB (config.data.cache_gib=20) those not used for '
      'longest go\n'
    )
  assert not home.exists()


def test_entries_are_listed_with_what_they_are_of(home, tmp_path, capsys):
  for seed, name in enumerate(['nuts', 'line\nbreak']):
    with prepare(tmp_path / name, home, seed):
      pass
  figures = tmp_path / 'cache.json'
  with prepare(tmp_path / 'nuts', home, 0):
    status, out, err = run(capsys, '--json', figures)
  assert (status, err) == (0, '')
  _, _, first, second, total, _ = out.splitlines()
  assert 'now' in first
  assert str(tmp_path / 'nuts') in first
  assert str(tmp_path / 'line\\nbreak') in second
  assert total.startswith(f'{home}: 2 entries, 0.')
  found = json.loads(figures.read_text())
  assert [entry['images'] for entry in found['entries']] == [8, 8]
  assert [entry['in_use'] for entry in found['entries']] == [True, False]
  assert found['bytes'] == sum(entry['bytes'] for entry in found['entries'])
  for entry in found['entries']:
    assert (home / entry['name']).is_dir()
    assert entry['name'] in out


def test_all_is_removed_but_what_is_in_use_or_not_ours(home, tmp_path, capsys):
  with prepare(tmp_path / 'nuts', home, 0) as made:
    used = pathlib.Path(made.data_dir).relative_to(home).parts[0]
    with prepare(tmp_path / 'bolts', home, 1):
      pass
    (home / 'notes.txt').touch()
    (home / digest_cache.FILE).touch()
    status, out, err = run(capsys, '--clear')
    assert status == 1
    assert out.startswith('removed: folder-')
    assert err == f'warning: {used} stays: a run uses it\n'
    assert {path.name for path in home.iterdir()} == {used, 'notes.txt'}
  assert run(capsys, '--clear')[0] == 0
  assert [path.name for path in home.iterdir()] == ['notes.txt']


def test_some_are_removed_by_name(home, tmp_path, capsys):
  for seed, name in enumerate(['nuts', 'bolts', 'pins']):
    with prepare(tmp_path / name, home, seed):
      pass
  (home / digest_cache.FILE).touch()
  by_source = {pathlib.Path(each.source).name: each.name for each in entries.list_all(home)}
  unwanted = [by_source['nuts'], by_source['pins']]
  status, _, err = run(capsys, '--clear', *unwanted, 'nothing')
  assert (status, err) == (
    2,
    f"error: {home}: has no entry 'nothing'; `patch-svdd cache` lists them\n",
  )
  assert len(entries.list_all(home)) == 3
  assert run(capsys, '--clear', *unwanted)[0] == 0
  assert [each.name for each in entries.list_all(home)] == [by_source['bolts']]
  assert (home / digest_cache.FILE).exists()


def test_compiled_programs_are_one_entry(home, tmp_path, capsys):
  with prepare(tmp_path / 'nuts', home, 0):
    pass
  programs = compilation_cache.Programs(home / compilation_cache.FOLDER, 2**20)
  for key in 'ab':
    programs.put(key, bytes(1000))
  figures = tmp_path / 'cache.json'
  status, out, err = run(capsys, '--json', figures)
  assert (status, err) == (0, '')
  assert '| programs' in out
  assert '2 compiled programs' in out
  assert f'{home}: 2 entries, ' in out
  [entry] = [e for e in json.loads(figures.read_text())['entries'] if e['name'] == 'programs']
  assert entry['bytes'] == 2 * (1000 + 16)
  # A folder of the same name in a folder that a user names is the user's.
  assert '| programs' not in run(capsys, '--prepared', home)[1]
  status, out, _ = run(capsys, '--clear', 'programs')
  assert (status, out.splitlines()[0]) == (0, 'removed: programs (0.00 MB)')
  assert not compilation_cache.kept(home / 'programs')
  assert len(entries.list_all(home)) == 1


@pytest.mark.parametrize('name', ['..', '.', '../outside', 'notes', '/', ''])
def test_names_that_are_no_entries_are_refused(home, tmp_path, capsys, name):
  for place in (home / 'notes', tmp_path / 'outside'):
    place.mkdir(parents=True)
  status, _, err = run(capsys, '--clear', name)
  assert (status, err.count('\n')) == (2, 1)
  assert home.is_dir()
  assert (home / 'notes').is_dir()
  assert (tmp_path / 'outside').is_dir()


def test_another_folder_is_asked_about_by_name(home, tmp_path, capsys):
  place = tmp_path / 'prepared'
  with prepare(tmp_path / 'nuts', place, 0):
    pass
  (home / digest_cache.FILE).touch()
  assert f'{place}: 1 entry, ' in run(capsys, '--prepared', place)[1]
  assert run(capsys, '--prepared', place, '--clear')[0] == 0
  assert list(place.iterdir()) == []
  assert (home / digest_cache.FILE).exists()


def test_without_a_home_there_is_one_line(monkeypatch, capsys):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', lambda number: {}[number])
  status, _, err = run(capsys)
  assert status == 2
  assert err.startswith('error: there is no home folder to keep prepared data in: set config.data.')
