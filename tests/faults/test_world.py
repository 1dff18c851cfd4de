"""What is around a command: its terminal, its signals, its devices, the process that started it."""

import contextlib
import itertools
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from patch_svdd_jax.commands import main
from tests.faults import programs

PROGRAM = [sys.executable, '-m', 'patch_svdd_jax']
# What a command is started by, one after another.
STARTS = {
  'module': [*PROGRAM, 'train'],
  'script': [sys.executable, 'train.py'],
  'installed': [pathlib.Path(sys.executable).with_name('patch-svdd'), 'train'],
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Images and a finished run, with a detector."""
  root = programs.write(tmp_path_factory.mktemp('world') / 'parts')
  workdir = root.parent / 'run'
  assert main(programs.train(root, workdir)) == 0
  return root, workdir


@pytest.fixture(scope='module')
def environment(compilation):
  """That of a user, whose processes compile as this one does."""
  return programs.variables(compilation)


def shell(arguments, redirection, environment):
  """Runs a command with its output led somewhere by bash."""
  return subprocess.run(
    ['bash', '-o', 'pipefail', '-c', f'"$@" {redirection}', 'bash', *PROGRAM, *map(str, arguments)],
    cwd=programs.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
  )


# Where the output goes, the exit status, and what is said of it.
REDIRECTIONS = {
  '>&-': (1, ['error: standard output was lost: Bad file descriptor']),
  '>/dev/full': (1, ['error: standard output was lost: No space left on device']),
  '2>&-': (0, []),
  '2>/dev/full': (0, []),
  '>/dev/full 2>/dev/full': (1, []),
  '<&- >&- 2>&-': (1, []),
  '| head -c 0': (1, []),
}


@pytest.mark.parametrize(
  'redirection',
  [
    pytest.param(each, marks=pytest.mark.slow if number % 2 else ())
    for number, each in enumerate(REDIRECTIONS)
  ],
)
def test_what_cannot_be_printed_stops_no_work(run, environment, tmp_path, redirection):
  (root, workdir), found = run, tmp_path / 'found'
  done = shell(programs.predict(workdir, found, root / 'test'), redirection, environment)
  errors = [line for line in done.stderr.splitlines() if line.startswith('error')]
  assert (done.returncode, errors) == REDIRECTIONS[redirection]
  assert 'Traceback' not in done.stderr
  assert 'Exception ignored' not in done.stderr
  assert len((found / 'results.jsonl').read_text().splitlines()) == 2
  assert (found / 'report.html').stat().st_size > 10_000


@pytest.mark.parametrize(
  'redirection', ['>/dev/full 2>&-', pytest.param('2>/dev/full', marks=pytest.mark.slow)]
)
def test_training_survives_a_lost_log(run, environment, tmp_path, redirection):
  done = shell(programs.train(run[0], tmp_path / 'run'), redirection, environment)
  assert done.returncode == (0 if redirection == '2>/dev/full' else 1), done.stderr
  assert (tmp_path / 'run' / 'model').is_dir()
  assert [line['step'] for line in programs.metrics(tmp_path / 'run')] == [2, 4]


@pytest.mark.parametrize(
  'arguments', [pytest.param(['train', '--help'], marks=pytest.mark.slow), ['nosuch']], ids=' '.join
)
def test_help_without_a_place_to_go(environment, arguments):
  done = shell(arguments, '>/dev/full', environment)
  assert done.returncode == (2 if arguments == ['nosuch'] else 1)
  assert 'Traceback' not in done.stderr
  assert shell(arguments, '>&- 2>&-', environment).returncode == done.returncode


@contextlib.contextmanager
def started(arguments, environment):
  """Starts a command, and yields it once it has taken the signals: then it has a second thread."""
  command = [str(each) for each in arguments]
  pipe = subprocess.PIPE
  with subprocess.Popen(
    command, cwd=programs.ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
  ) as process:
    tasks = pathlib.Path(f'/proc/{process.pid}/task')
    try:
      while process.poll() is None and len(list(tasks.iterdir())) < 2:
        time.sleep(0.001)
      yield process
    finally:
      process.kill()


def lines_of(text):
  """Lines without those of progress bars."""
  return [line for line in text.replace('\r', '\n').splitlines() if line and '|' not in line]


def interrupt(moments, number, run, folder, environment):
  """Sends a signal to a run at each of some moments, in seconds after its first line."""
  for moment, program in zip(moments, itertools.cycle(STARTS), strict=False):
    arguments = programs.train(run[0], folder / str(moment), '--config.train.steps=1000000')[1:]
    with started([*STARTS[program], *arguments], environment) as process:
      time.sleep(moment)
      process.send_signal(number)
      printed, errors = process.communicate(timeout=60)
    # Before it trains, a run says what it has read.
    lines = [line for line in lines_of(printed + errors) if not line.startswith('folder/parts: ')]
    assert process.returncode == 128 + number, (moment, lines)
    if len(lines) == 2:  # training had begun
      assert lines[0].startswith('stopped at step '), (moment, lines)
      assert lines[1].startswith('stopping after this call'), (moment, lines)
    else:
      assert lines == ['interrupted'], moment


@pytest.mark.parametrize(
  'number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_at_any_moment_is_one_line(run, environment, tmp_path, number):
  interrupt([0.0, 0.5, 1.5, 2.5], number, run, tmp_path, environment)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_forty_moments_is_one_line(run, environment, tmp_path, number):
  interrupt([0.125 * step for step in range(40)], number, run, tmp_path, environment)


@pytest.mark.parametrize('pause', [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_a_second_signal_ends_training_at_once(run, environment, tmp_path, pause):
  # A call that takes so long that the first signal cannot end it.
  long = ['--config.train.steps=1000000', '--config.train.steps_per_call=100000']
  train = programs.train(run[0], tmp_path / 'run', *long)
  with started([*PROGRAM, *train], environment) as process:
    while process.poll() is None and not (tmp_path / 'run' / 'tensorboard').exists():
      time.sleep(0.01)
    time.sleep(1 + pause)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05 + pause)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
  assert time.monotonic() - start < 5
  assert process.returncode == 130, errors
  assert lines_of(errors)[-1] == 'interrupted'
  assert 'Traceback' not in errors


def test_an_ignored_signal_stays_ignored(run, environment, tmp_path):
  """As of what a shell starts in the background, or `nohup`."""
  arguments = programs.predict(run[1], tmp_path / 'found', run[0] / 'test')
  ignoring = ['bash', '-c', 'trap "" INT; exec "$@"', 'bash', *PROGRAM, *arguments]
  with started(ignoring, environment) as process:
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
  assert process.returncode == 0, errors


# What is asked of jax, and what the line says of it.
PLATFORMS = {
  ('JAX_PLATFORMS', 'cuda'): 'JAX_PLATFORMS=cuda: jax finds no such device here, but cpu: unset',
  ('JAX_PLATFORMS', 'tpu'): 'JAX_PLATFORMS=tpu: jax finds no such device here (Unable to init',
  ('JAX_PLATFORMS', 'cpu,none'): 'JAX_PLATFORMS=cpu,none: jax finds no such device here (Unable',
  ('JAX_PLATFORM_NAME', 'gpu'): 'JAX_PLATFORM_NAME=gpu: jax finds no such device here (',
  ('JAX_ENABLE_X64', 'maybe'): "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'",
}


def without_platform(environment):
  """What a user has who asks for none."""
  return {name: text for name, text in environment.items() if name != 'JAX_PLATFORMS'}


@pytest.mark.parametrize('asked', PLATFORMS, ids='='.join)
def test_devices_that_are_not_there_are_one_line(run, environment, tmp_path, asked):
  arguments = programs.predict(run[1], tmp_path / 'found', run[0])
  done = shell(arguments, '', without_platform(environment) | dict([asked]))
  assert done.returncode == 2
  [line] = done.stderr.splitlines()
  assert line.startswith(f'error: {PLATFORMS[asked]}')
  assert not (tmp_path / 'found').exists()


PLUGIN = """
from jax._src import xla_bridge

def fail():
  raise RuntimeError('CUDA_ERROR_NO_DEVICE\\nis detected')

def initialize():
  {}
"""
# What a plugin does, what is said of it, and the exit status.
FAILURES = [
  (
    "raise RuntimeError('the driver is\\ntoo old')",
    (
      'warning: Jax plugin configuration error: Exception when calling '
      'jax_plugins.broken.initialize() (the driver is too old)'
    ),
    0,
  ),
  (
    "xla_bridge.register_backend_factory('other', fail, priority=500, fail_quietly=False)",
    (
      "error: jax cannot use the devices of this machine (Unable to initialize backend 'other': "
      'CUDA_ERROR_NO_DEVICE): JAX_PLATFORMS=cpu does without'
    ),
    2,
  ),
]


@pytest.mark.parametrize(('how', 'line', 'status'), FAILURES, ids=['import', 'start'])
def test_a_plugin_that_fails_is_one_line(run, environment, tmp_path, how, line, status):
  folder = tmp_path / 'jax_plugins' / 'broken'
  folder.mkdir(parents=True)
  (folder / '__init__.py').write_text(PLUGIN.format(how))
  arguments = programs.predict(run[1], tmp_path / 'found', run[0] / 'test')
  done = shell(arguments, '', without_platform(environment) | {'PYTHONPATH': str(tmp_path)})
  assert done.returncode == status, done.stderr
  assert line in done.stderr.splitlines()
  assert 'Traceback' not in done.stderr


def test_devices_are_looked_for_again_after_a_refusal(environment):
  code = """
import numpy as np
from patch_svdd_jax import UserError, memory_bank
for _ in range(2):
  try:
    memory_bank.from_rows(np.eye(4, dtype=np.float32))
  except UserError as error:
    print(error)
"""
  with programs.start(code, [], environment | {'JAX_PLATFORMS': 'cuda'}) as process:
    printed, errors = process.communicate(timeout=60)
  assert process.returncode == 0, errors
  assert printed.count('JAX_PLATFORMS=cuda: jax finds no such device here, but cpu') == 2


FORK = """
import os, sys, warnings
import numpy as np
from patch_svdd_jax import PatchSVDD, UserError, memory_bank, nearest

warnings.simplefilter('ignore')
image = np.zeros((40, 48, 3), np.uint8)
rows = np.eye(4, dtype=np.float32)
used = sys.argv[2] == 'used'
if used:
  detector, bank = PatchSVDD.load(sys.argv[1]), memory_bank.from_rows(rows)
calls = [
  lambda: PatchSVDD.load(sys.argv[1]),
  lambda: PatchSVDD.fit([image]),
  lambda: detector.predict([image]),
  lambda: memory_bank.from_rows(rows),
  lambda: nearest.search(rows, bank),
]
if os.fork() == 0:
  for call in calls if used else calls[:1]:
    try:
      call()
      print('done')
    except UserError as error:
      print(error)
  sys.stdout.flush()
  os._exit(0)
os.wait()
"""


def test_a_forked_process_says_so_at_once(run, environment):
  with programs.start(FORK, [run[1], 'used'], environment) as process:
    printed, errors = process.communicate(timeout=60)
  assert process.returncode == 0, errors
  lines = printed.splitlines()
  assert len(lines) == 5, errors
  assert all(line.startswith('this process was forked from process ') for line in lines)
  assert all("multiprocessing.get_context('spawn')" in line for line in lines)


def test_a_process_that_was_forked_before_is_like_any_other(run, environment):
  with programs.start(FORK, [run[1], 'unused'], environment) as process:
    printed, errors = process.communicate(timeout=60)
  assert (process.returncode, printed) == (0, 'done\n'), errors
