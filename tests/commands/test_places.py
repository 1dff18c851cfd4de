"""Where commands and the Python interface read and write: homes, odd paths, endings of files."""

import argparse
import importlib
import os
import pathlib
import pwd

import pytest

from patch_svdd_jax import PatchSVDD
from patch_svdd_jax.commands import COMMANDS, console, main, outputs
from patch_svdd_jax.data import sources
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files
from tests.faults import programs


def test_every_path_is_of_one_type(monkeypatch):
  taken = {}
  add = argparse.ArgumentParser.add_argument

  def note(parser, *names, **settings):
    taken.setdefault(settings.get('type'), set()).add(names[0])
    return add(parser, *names, **settings)

  monkeypatch.setattr(argparse._ActionsContainer, 'add_argument', note)  # noqa: SLF001
  for name in COMMANDS:
    module = importlib.import_module(f'patch_svdd_jax.commands.{name.replace("-", "_")}')
    module.add_arguments(argparse.ArgumentParser())
  assert not {pathlib.Path, open} & taken.keys()
  paths = (
    '--workdir --model --output --weights --mvtec-maps --json --plot --profile --prepared file '
    'workdirs one other'
  )
  assert taken[console.path] == {*paths.split()}
  assert taken[console.images] == {'images', '--images', '--data'}


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home, which is not where the process is."""
  place = tmp_path / 'home'
  (tmp_path / 'elsewhere').mkdir()
  place.mkdir()
  monkeypatch.setenv('HOME', str(place))
  monkeypatch.chdir(tmp_path / 'elsewhere')
  return place


def test_a_home_is_found_everywhere(home, capsys):
  root = programs.write(home / 'parts')
  programs.config_for(root)
  config = ['--config=~/parts.py:~/parts', '--config.data.prepared=~/prepared']
  assert main(['train', *config, '--workdir=~/run']) == 0
  assert main(['predict', '--model=~/run', '--output=~/found/../found/', '~/parts/test']) == 0
  assert main(['export', '--model=~/run', '--output=~/parts.StableHLO']) == 0
  assert main(['curves', '~/run/', '--json=~/curves.json', '--plot=~/curves.PNG']) == 0
  again = PatchSVDD.load('~/run')
  again.save('~/copy')
  again.save(pathlib.Path('~/copy'))
  assert 'Traceback' not in capsys.readouterr().err
  made = ['prepared', 'run', 'found', 'parts.StableHLO', 'curves.json', 'curves.PNG', 'copy']
  assert {*made} < {path.name for path in home.iterdir()}
  assert (home / 'curves.PNG').read_bytes().startswith(b'\x89PNG')
  assert not list(pathlib.Path.cwd().iterdir())


def test_a_home_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
  monkeypatch.delenv('HOME')
  monkeypatch.setattr(pwd, 'getpwuid', {}.__getitem__)
  for name in ('~', '~/run', '~no-such-user/run'):
    with pytest.raises(UserError, match='there is no such home: give the whole path'):
      files.place(name)
    with pytest.raises(SystemExit, match='2'):
      main(['predict', '--model', name, '--output', str(tmp_path / 'found'), str(tmp_path)])
    assert 'argument --model: ' in capsys.readouterr().err
    with pytest.raises(UserError, match='there is no such home'):
      PatchSVDD.load(name)
  root = programs.write(tmp_path / 'parts')
  home = ['--config.data.prepared=~', '--config.data.root=~no-such-user']
  for key in home:
    assert main(programs.train(root, tmp_path / 'run', key)) == 2
    line = programs.error_line(capsys.readouterr().err)
    assert line.startswith(f'error: {key.removeprefix("--").partition("=")[0]}=')
    assert line.endswith(': there is no such home: give the whole path')
  # Without images of one's own nothing else is needed of a home.
  assert main(programs.train(root, tmp_path / 'run')) == 0


@pytest.mark.parametrize('text', ['', ' ', 'a\0b', 's3://bucket', None, 7, b'run'])
def test_what_is_no_path_is_one_line(text, tmp_path, capsys):
  for call in (files.place, PatchSVDD.load):
    with pytest.raises(UserError, match=r'is no path: |in a bucket'):
      call(text)
  if isinstance(text, str):
    with pytest.raises(SystemExit, match='2'):
      main(['import-authors', 'enchier.pkl', '--workdir', text])
    assert 'argument --workdir: ' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['', '\0'])
def test_settings_that_are_no_path_name_their_key(text):
  config = importlib.import_module('patch_svdd_jax.configs.default').get_config().data
  config.update(name='folder', root=text)
  with pytest.raises(UserError, match=r'^config\.data\.root'):
    sources.present(config)
  if text:
    config.update(root='.', prepared=text)
    with pytest.raises(UserError, match=r'^config\.data\.prepared='):
      sources.prepared_folder(config)


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path, capsys):
  root, file = programs.write(tmp_path / 'parts'), tmp_path / 'file'
  file.write_text('here first')
  found = str(tmp_path / 'found')
  for arguments in (
    programs.train(root, file),
    programs.train(root, file / 'run'),
    programs.train(root, tmp_path / 'run', f'--config.data.root={file}'),
    programs.train(root, tmp_path / 'run', f'--config.data.prepared={file}'),
    programs.evaluate(file),
    programs.predict(file, found, root),
    programs.predict(tmp_path, file, root),
    ['export', '--model', str(file), '--output', found + '.onnx'],
    ['curves', str(file)],
    ['light', '--workdir', str(file)],
    ['build-bank', '--workdir', str(file)],
    ['sweep', '--config', programs.config_for(root), '--workdir', str(file)],
    ['import-authors', str(file), '--workdir', found],
    ['baselines', '--config', programs.config_for(root), '--workdir', str(file)],
  ):
    assert main(arguments) == 2, arguments
    programs.error_line(capsys.readouterr().err)
  assert file.read_text() == 'here first'


@pytest.mark.parametrize(
  'name', ['x.engine', 'x.pt', 'x.tflite', 'x.pb', 'x.bin', 'x', 'x.onnx.gz', '.onnx', 'x.onnx ']
)
def test_an_export_is_called_what_it_is(name, tmp_path, capsys):
  assert main(['export', '--model', 'run', '--output', str(tmp_path / name)]) == 2
  line = programs.error_line(capsys.readouterr().err)
  assert line == f'error: --output {tmp_path / name}: must end in .stablehlo or .onnx'
  assert not list(tmp_path.iterdir())


def test_suffixes_are_known_in_any_case():
  for name in ('x.ONNX', 'x.Onnx', 'X.onnx'):
    assert outputs.check_suffix('--output', pathlib.Path(name), ['.jax', '.onnx']) == '.onnx'


def test_dots_lead_up(tmp_path, monkeypatch):
  """Also out of folders that are not there yet."""
  root = programs.write(tmp_path / 'parts')
  monkeypatch.chdir(root)
  workdir = pathlib.Path('..', 'new', os.pardir, 'run')
  assert main(programs.train(root, workdir)) == 0
  assert main(programs.evaluate(tmp_path / 'parts' / '..' / 'run', '--no-random-encoder')) == 0
