"""The command line as a whole: help, errors, and what is imported when."""

import argparse
import contextlib
import importlib
import json
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

import patch_svdd_jax
from patch_svdd_jax import commands, configuration
from patch_svdd_jax.commands import COMMANDS, alone, main
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import compilation_cache, working_copy
from patch_svdd_jax.system.store import Store
from tests.faults import programs

ROOT = pathlib.Path(__file__).parents[2]


def run(*command):
  return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)


def test_help_lists_the_commands(capsys):
  with pytest.raises(SystemExit) as caught:
    main(['--help'])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  assert COMMANDS.keys() >= {'train', 'eval', 'import-authors'}
  for name, purpose in COMMANDS.items():
    assert f'    {name}' in shown
    assert purpose in ' '.join(shown.split())
  for name in ('train', 'eval'):
    assert (ROOT / f'{name}.py').is_file()


def test_version(capsys):
  with pytest.raises(SystemExit) as caught:
    main(['--version'])
  assert caught.value.code == 0
  assert capsys.readouterr().out == f'{patch_svdd_jax.__version__}\n'


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['nosuch'], "invalid choice: 'nosuch'"),
    ([], 'the following arguments are required: COMMAND'),
    (['eval'], 'the following arguments are required: --workdir'),
    (['train', '--workdir', 'w'], 'the following arguments are required: --config'),
    (['train', '--conf', 'default', '--workdir', 'w'], 'required: --config'),
    (['eval', '--workdir', 'w', '--random-encoder=no'], "ignored explicit argument 'no'"),
  ],
)
def test_wrong_usage(capsys, arguments, line):
  with pytest.raises(SystemExit) as caught:
    main(arguments)
  assert caught.value.code == 2
  shown = capsys.readouterr()
  assert not shown.out
  assert line in shown.err


def test_a_user_error_is_one_line(capsys, monkeypatch):
  from patch_svdd_jax.commands import import_authors

  def fail(*_):
    raise UserError('it is raining')

  monkeypatch.setattr(import_authors, 'run', fail)
  assert main(['import-authors', 'file', '--workdir', 'w']) == 2
  shown = capsys.readouterr()
  assert (shown.out, shown.err) == ('', 'error: it is raining\n')


def test_an_interrupt_has_no_traceback(capsys, monkeypatch):
  from patch_svdd_jax.commands import import_authors

  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(import_authors, 'run', interrupt)
  assert main(['import-authors', 'file', '--workdir', 'w']) == 130
  assert capsys.readouterr().err == 'interrupted\n'


def test_a_bug_keeps_its_traceback(monkeypatch):
  from patch_svdd_jax.commands import import_authors

  def fail(*_):
    raise ZeroDivisionError

  monkeypatch.setattr(import_authors, 'run', fail)
  with pytest.raises(ZeroDivisionError):
    main(['import-authors', 'file', '--workdir', 'w'])


@pytest.mark.parametrize('script', ['train.py', 'eval.py'])
def test_help_of_the_scripts(script):
  """As a user types it: what it does, an example, the options, every key with its default."""
  done = run(sys.executable, script, '--help')
  assert (done.returncode, done.stderr) == (0, '')
  command = script.removesuffix('.py')
  description = importlib.import_module(f'patch_svdd_jax.commands.{command}').__doc__
  assert description.splitlines()[0] in done.stdout
  assert f'python {script} ' in done.stdout
  assert '--workdir' in done.stdout
  assert all(len(line) <= 100 for line in done.stdout.splitlines())
  for key, value in configuration.flatten(default.get_config()):
    assert f'  --{key}={value!r}\n' in done.stdout + '\n'
  for path in (ROOT / 'configs').glob('[!_]*.py'):
    assert path.stem in done.stdout.partition('FILE[:ARGUMENT]')[2]


def test_module_and_console_script_are_the_same():
  script = pathlib.Path(sys.executable).with_name('patch-svdd')
  if not script.exists():
    pytest.skip('the package is not installed')
  for arguments in (['--help'], ['nosuch']):
    module, console = (
      run(*command, *arguments) for command in ([sys.executable, '-m', 'patch_svdd_jax'], [script])
    )
    assert module.returncode == console.returncode
    assert (module.stdout, module.stderr) == (console.stdout, console.stderr)


def imported(statement):
  """The modules that a fresh process has after a statement."""
  code = f'{statement}\nimport json, sys; print(json.dumps([*sys.modules]), file=sys.__stderr__)'
  done = run(sys.executable, '-c', code)
  assert done.returncode == 0, done.stderr
  return set(json.loads(done.stderr))


def test_importing_the_package_is_quick():
  heavy = {'jax', 'flax', 'numpy', 'orbax', 'tensorflow', 'torch', 'tensorflow_datasets'}
  for statement in ('import patch_svdd_jax', 'import patch_svdd_jax.commands'):
    assert not imported(statement) & heavy


def test_a_server_begins_without_what_only_some_requests_need():
  statement = 'from patch_svdd_jax.commands import serve\nfrom patch_svdd_jax.serving import app'
  heavy = {'matplotlib', 'scipy.stats', 'scipy.optimize', 'tensorflow_datasets', 'optax', 'jinja2'}
  assert not imported(statement) & heavy


def test_help_needs_no_jax():
  statement = (
    'from patch_svdd_jax.commands import main\ntry: main(["--help"])\nexcept SystemExit: pass'
  )
  assert 'jax' not in imported(statement)


@pytest.mark.parametrize(
  ('arguments', 'kept'),
  [
    (['import-authors', 'file', '--workdir', 'w'], True),
    (['import-authors', 'file', '--workdir', 'w', '--no-compilation-cache'], False),
    (['cache'], False),
  ],
)
def test_what_commands_compile_is_kept_unless_told_otherwise(capsys, monkeypatch, arguments, kept):
  called = []
  module = importlib.import_module(f'patch_svdd_jax.commands.{arguments[0].replace("-", "_")}')
  monkeypatch.setattr(module, 'run', lambda options: 0)
  monkeypatch.setattr(compilation_cache, 'enable', lambda: called.append(True))
  assert main(arguments) == 0
  assert bool(called) == kept


@pytest.mark.parametrize('distributed', [False, True])
def test_what_one_of_several_processes_compiles_is_not_kept(monkeypatch, distributed):
  called = []
  monkeypatch.setattr(compilation_cache, 'enable', lambda: called.append(True))
  options = argparse.Namespace(compilation_cache=True, distributed=distributed)
  assert alone(SimpleNamespace(run=lambda options: 0), options, []) == 0
  assert bool(called) != distributed


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_that_compile_can_be_told_to_keep_nothing(capsys, name):
  with pytest.raises(SystemExit):
    main([name, '--help'])
  module = importlib.import_module(f'patch_svdd_jax.commands.{name.replace("-", "_")}')
  compiles = getattr(module, 'NEEDS_DEVICES', True)
  assert ('--no-compilation-cache' in capsys.readouterr().out) == compiles


COUNTING = """
import collections, json, sys
import jax
found = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: found.update([event.split('/')[-1]]))
from patch_svdd_jax.commands import main
assert main(sys.argv[1:]) == 0
print(json.dumps([found['cache_hits'], found['compile_requests_use_cache']]))
"""


@pytest.mark.slow
def test_a_second_evaluation_compiles_nothing_and_finds_the_same(tmp_path, compilation):
  root = programs.write(tmp_path / 'parts')
  workdir = tmp_path / 'run'
  assert main(programs.train(root, workdir)) == 0
  optimisations = {'jax_disable_most_optimizations': compilation['jax_disable_most_optimizations']}
  environment = programs.variables(optimisations) | {'XDG_CACHE_HOME': str(tmp_path / 'home')}
  del environment[compilation_cache.VARIABLE]
  counts, figures = [], []
  for _ in range(2):
    with programs.start(COUNTING, programs.evaluate(workdir), environment) as process:
      printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert 'compilation' not in errors
    counts.append(json.loads(printed.splitlines()[-1]))
    figures.append(json.loads((workdir / 'eval' / 'metrics.json').read_text()))
  (hits, asked), second = counts
  assert hits < asked
  assert second == [asked, asked]
  for each in figures:
    del each['timing'], each['speed']
  assert figures[0] == figures[1]


def test_each_of_several_processes_uploads_its_own_trace_and_nothing_else(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(commands, 'is_first', lambda _: False)
  monkeypatch.setattr(commands, 'meet', lambda _: None)
  traces, workdir = (working_copy.place(f'memory://bucket/{name}') for name in ('traces', 'run'))
  options = argparse.Namespace(profile=traces, workdir=workdir)
  with contextlib.ExitStack() as kept:
    commands.open_folders(None, options, kept)
    for folder in (traces, workdir):
      folder.mkdir()
      (folder / 'file').touch()
  assert list(Store('memory://bucket').list()) == ['traces/file']
