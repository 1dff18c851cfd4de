"""What there is of Windows that Linux can imitate: what is not there, its locks, its names."""

import errno
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from patch_svdd_jax import commands
from patch_svdd_jax.data import prepared
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, names, process_memory, signals

SCRIPT = pathlib.Path(__file__).with_name('other_system.py')


def run(*arguments, cwd):
  environment = {'PYTHONPATH': str(pathlib.Path(__file__).parents[2])} | dict(os.environ)
  return subprocess.run(
    [sys.executable, str(SCRIPT), *map(str, arguments)],
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_every_module_and_command_is_there_without_what_posix_has(tmp_path):
  done = run('import', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  for name in commands.COMMANDS:
    assert f'usage: patch-svdd {name} [-h]' in done.stdout


@pytest.mark.slow
def test_the_main_job_is_done_without_what_posix_has(tmp_path):
  train = [
    'train',
    '--config',
    'laptop:brick',
    '--workdir',
    'run',
    '--config.data.normal_images=12',
  ]
  for arguments in (
    [*train, '--config.train.steps=20', '--config.train.warmup_steps=0'],
    ['eval', '--workdir', 'run', '--no-random-encoder'],
    ['predict', '--model', 'run', '--output', 'found', 'run/eval/overlays'],
    ['build-bank', '--workdir', 'run'],
  ):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
  lines = (tmp_path / 'found/results.jsonl').read_text('utf-8').splitlines()
  assert len(lines) == len(list((tmp_path / 'run/eval/overlays').rglob('*.png')))
  assert all(json.loads(line)['score'] > 0 for line in lines)


def test_a_missing_array_record_is_one_line(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match=r'array_record is missing, .* under WSL 2'):
    prepared.check_format()


@pytest.mark.parametrize(
  ('name', 'own'),
  [
    ('test/scratch/003.png', True),
    ('günter 1.png', True),
    ('.hidden', True),
    ('console.png', True),
    ('a:b.png', False),
    ('what?.png', False),
    ('con', False),
    ('NUL.png', False),
    ('com1.tar.gz', False),
    ('ends with a dot.', False),
    ('ends with a space ', False),
    ('a\nb', False),
  ],
)
def test_names_that_windows_refuses_are_others_everywhere(name, own):
  path = pathlib.PurePosixPath('found') / name
  found = names.portable(path)
  assert (found == path) == own
  assert not set(':?*<>|"\n') & set(found.name)
  assert not found.name.endswith(('.', ' '))
  assert found.name.partition('.')[0].lower() not in ('con', 'nul', 'com1')
  assert found.parent == path.parent
  assert names.portable(found) == found


def test_names_that_become_portable_stay_apart():
  many = ['a:b', 'a?b', 'a_b', 'con', '_con', 'CON', 'x' * 255, 'x' * 254 + ':']
  found = {str(names.portable(pathlib.PurePosixPath(name))) for name in many}
  assert len(found) == len(many)
  assert all(len(os.fsencode(name)) <= files.LONGEST_NAME for name in found)


def test_a_path_that_is_too_long_for_windows_is_one_line(tmp_path, monkeypatch):
  place = tmp_path / ('x' * 200) / ('y' * 60)
  monkeypatch.setattr(sys, 'platform', 'win32')
  said = r'has \d{3} characters, and Windows takes 259: choose'
  with pytest.raises(UserError, match=said), files.explained(place):
    raise FileNotFoundError(errno.ENOENT, 'No such file or directory')


def test_a_lease_that_is_lost_ends_the_process_as_a_signal_does(monkeypatch):
  raised = []
  monkeypatch.setattr(signals.signal, 'raise_signal', raised.append)
  monkeypatch.setattr(sys, 'platform', 'win32')
  signals.terminate()
  assert raised == [signals.signal.SIGTERM]


@pytest.mark.parametrize('platform', ['linux', 'darwin', 'win32'])
def test_peak_memory_is_known_on_every_system(platform, monkeypatch):
  import psutil

  class Process:
    def memory_info(self):
      return type('info', (), {'peak_wset': 300 * 2**20})

  monkeypatch.setattr(psutil, 'Process', Process)
  monkeypatch.setattr(sys, 'platform', platform)
  # What Linux has in KiB, macOS has in bytes.
  assert process_memory.peak() > (2**10 if platform == 'darwin' else 2**20) * 50
