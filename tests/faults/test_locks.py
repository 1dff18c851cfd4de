"""Two runs on one folder: the second is refused at once, and a run that died holds nothing."""

import errno
import signal

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import files, locks
from tests.faults import programs

HOLD = """
import pathlib, sys, time
from patch_svdd_jax.system import files, locks
with files.locked(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
  """A folder that another process has, and that process."""
  with programs.start(HOLD, [tmp_path / 'run'], programs.variables({})) as process:
    assert process.stdout.readline() == 'held\n', process.communicate()
    yield tmp_path / 'run', process
    process.kill()


def commands(folder):
  """Each command that writes to a folder, with that folder."""
  config = ['--config', 'textures:brick', '--workdir', str(folder)]
  return [
    ['train', *config],
    ['sweep', *config],
    ['baselines', *config],
    ['build-bank', '--workdir', str(folder)],
    ['reproduce', '--data', 'data', '--train', 'mvtec', '--workdir', str(folder)],
    programs.predict('model', folder, 'images'),
  ]


def test_a_second_run_is_refused_and_a_dead_one_is_not(held, capsys):
  folder, process = held
  for arguments in commands(folder):
    assert main(arguments) == 2
    line = programs.error_line(capsys.readouterr().err)
    assert line.startswith(f'error: {folder} is being written by another run: '), arguments
  assert [path.name for path in folder.iterdir()] == [files.LOCK]
  process.send_signal(signal.SIGKILL)
  process.wait()
  with files.locked(folder):
    pass
  assert list(folder.iterdir()) == []


def test_a_second_evaluation_is_refused(tmp_path, capsys):
  # A second file of the same process stands in for another process: the system tells them apart.
  with files.locked(tmp_path / 'run' / 'eval'):
    assert main(programs.evaluate(tmp_path / 'run')) == 2
  assert 'is being written by another run' in programs.error_line(capsys.readouterr().err)
  assert not (tmp_path / 'run').exists()


def test_the_lock_file_of_one_that_ended_in_between_counts_for_nothing(tmp_path, monkeypatch):
  """It was opened before its holder removed it, and locked after."""
  real, opened = locks.fcntl.flock, []

  def late(file, how):
    if not opened:
      (tmp_path / files.LOCK).unlink()
    opened.append(file)
    real(file, how)

  monkeypatch.setattr(locks.fcntl, 'flock', late)
  with files.locked(tmp_path):
    assert len(opened) == 2
    monkeypatch.undo()
    with pytest.raises(UserError, match='another run'), files.locked(tmp_path):
      pass


@pytest.mark.parametrize('number', locks.NO_LOCKS)
def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch, number):
  def refuse(*_):
    raise OSError(number, 'no locks')

  monkeypatch.setattr(locks.fcntl, 'flock', refuse)
  with files.locked(tmp_path / 'run'), files.locked(tmp_path / 'run'):
    (tmp_path / 'run' / 'file').touch()
  assert (tmp_path / 'run' / 'file').exists()


def test_a_broken_disk_is_one_line(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.EIO, 'broken')

  monkeypatch.setattr(locks.fcntl, 'flock', refuse)
  with (
    pytest.raises(UserError, match=r'cannot write .*run: Input/output'),
    files.locked(tmp_path / 'run'),
  ):
    pass
