"""Two processes of two devices each against one process of four."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system import distributed
from patch_svdd_jax.training import monitoring, train_state
from patch_svdd_jax.training.checkpoints import Checkpoints
from tests.detection.test_detector import random_images, random_params, tiny_config
from tests.support import banks

ROOT = pathlib.Path(__file__).parents[2]
TRAIN, TEST = random_images(1, 5), random_images(2, 3)


def results():
  """What every process has to find, by name."""
  found = {}
  rows, queries = banks.make(banks.duplicates)
  for name, small in (('copied', 2**20), ('sharded', 0)):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(memory_bank, 'SMALL', small)
      bank = memory_bank.from_rows(rows)
      assert bank.layout.sharded == (name == 'sharded')
      neighbours = nearest.search(queries, bank, 3, query_block=64)
      found |= {
        f'{name} rows': memory_bank.to_rows(bank),
        f'{name} distances': neighbours.distances,
        f'{name} indices': neighbours.indices,
      }
      config = tiny_config()
      config.encoder.scales, config.score.strides = (16,), (4,)
      config.score.coreset = 0.25 if name == 'copied' else 1
      config.score.outliers = 0.1 if name == 'copied' else 0.0
      detector = Detector.fit(config, random_params(config), TRAIN, step=7)
      found[f'{name} embeddings'] = memory_bank.to_rows(detector.banks[16])
  scores = detector.score(TEST)
  return found | {'patches': scores.distances['k16'], 'images': scores.images['k16']}


def configure(devices, settings):
  """Makes a new process like this one, but for its number of devices."""
  strict = {'jax_platforms': 'cpu', 'jax_numpy_rank_promotion': 'raise'}
  for name, value in (settings | strict | {'jax_num_cpu_devices': devices}).items():
    jax.config.update(name, value)


def work(process, processes, devices, address, settings, folder):
  """The main program of one process: writes its results into the folder."""
  configure(devices, settings)
  if processes > 1:
    jax.distributed.initialize(address, processes, process)
  assert (jax.process_count(), jax.local_device_count()) == (processes, devices)
  assert jax.device_count() == processes * devices
  np.savez(pathlib.Path(folder) / f'{process}.npz', **results())


def command(process, processes, devices, address, settings, arguments, number, step):
  """The main program of one process that runs a command; it sends itself a signal after a step."""
  configure(devices, settings)
  os.environ['JAX_COORDINATOR_ADDRESS'] = address
  os.environ['JAX_NUM_PROCESSES'], os.environ['JAX_PROCESS_ID'] = str(processes), str(process)
  for monitor in (monitoring.TrainingMonitor, monitoring.SilentMonitor):

    def record(self, last, *others, real=monitor.record):
      real(self, last, *others)
      if last == step:
        os.kill(os.getpid(), number)

    monitor.record = record
  sys.exit(main(arguments))


def free_address():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{listener.getsockname()[1]}'


def launch(call, **options):
  """A new process that calls a function of this module, given with its arguments."""
  # Without the flag that gives pytest's own process four devices.
  flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
  program = f'from tests.experiments import test_processes; test_processes.{call}'
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', program],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': ' '.join(flags)},
    **options,
  )


def start(processes, devices, settings, folder):
  """Processes at work; what they wrote is read by `finish`."""
  common = processes, devices, free_address(), settings, str(folder)
  return [launch(f'work(*{(process, *common)!r})') for process in range(processes)]


def finish(started, folder):
  try:
    for process in started:
      assert process.wait(timeout=300) == 0
  finally:
    # One that waits for another that has failed.
    for process in started:
      process.kill()
      process.wait()
  return [dict(np.load(folder / f'{process}.npz')) for process in range(len(started))]


@pytest.fixture(scope='module')
def runs(compilation, tmp_path_factory):
  """The results of this process with four devices, and of two with two each."""
  folder = tmp_path_factory.mktemp('run')
  started = start(2, 2, compilation, folder)
  assert (jax.process_count(), jax.local_device_count()) == (1, 4)
  # While they work, so does this process.
  here = results()
  return here, finish(started, folder)


def test_processes_change_nothing(runs):
  here, others = runs
  assert len(others) == 2
  for found in others:
    assert found.keys() == here.keys()
    for name, values in here.items():
      if 'embeddings' in name or name in ('patches', 'images'):
        # Convolutions of other batches, and the maps, are added up in another order.
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)
      else:
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize('bank', ['copied', 'sharded'])
def test_what_they_all_find_is_right(bank, runs):
  found, _ = runs
  rows, queries = banks.make(banks.duplicates)
  distances, indices = banks.brute_force(queries, rows, 3)
  np.testing.assert_array_equal(found[f'{bank} indices'], indices)
  np.testing.assert_array_equal(found[f'{bank} distances'], distances.astype(np.float32))
  np.testing.assert_array_equal(found[f'{bank} rows'], rows)


def test_what_they_all_keep_is_a_share_of_the_embeddings(runs):
  found, _ = runs
  kept, embeddings = (
    {row.tobytes() for row in found[f'{bank} embeddings']} for bank in ('copied', 'sharded')
  )
  assert len(found['sharded embeddings']) == 5 * 7 * 9
  # A quarter of what is left without a tenth.
  left = 5 * 7 * 9 - round(0.1 * 5 * 7 * 9)
  assert len(kept) == len(found['copied embeddings']) == round(left / 4)
  assert kept < embeddings


# The commands.

CONFIG = """
from patch_svdd_jax.configs import default

def get_config(root):
  config = default.get_config()
  config.data.update(name='folder', category='', root=root, prepared=root + '.prepared')
  config.data.image_size = (40, 48)
  config.encoder.update(receptive_field=16, scales=(16,), depth=3, width=0.25, embed_dim=8)
  config.train.update(steps=8, steps_per_call=2, batch_size=8, svdd_weight=0.1)
  config.checkpoint.update(every=2, keep=9)
  config.score.update(strides=(4,), batch_size=1)
  return config
"""

SPEEDS = ('steps_per_s', 'pairs_per_s')


def run_command(settings, arguments, endings=((0, 0), (0, 0))):
  """Runs a command in two processes of two devices; returns status, output and errors of each.

  Args:
    settings: of jax.
    arguments: of the command.
    endings: for each process, the signal that it sends itself, and after which step.
  """
  common = 2, 2, free_address(), settings, [*arguments, '--distributed']
  started = [
    launch(
      f'command(*{(process, *common, *map(int, ending))!r})',
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process, ending in enumerate(endings)
  ]
  try:
    # What they print fits into the pipes.
    printed = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, printed, strict=True)]
  finally:
    for process in started:
      process.kill()
      process.communicate()


@pytest.fixture(scope='module')
def train(tmp_path_factory):
  """The arguments of `train`, on a folder of five training and four test images."""
  folder = tmp_path_factory.mktemp('train')
  (folder / 'tiny.py').write_text(CONFIG)
  for index, name in enumerate([*['train/good'] * 5, *['test/good', 'test/bad'] * 2]):
    pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    if name == 'test/bad':
      pixels[10:20, 10:30] = 255
    (folder / 'nuts' / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / 'nuts' / name / f'{index}.png')
  return ['train', '--config', f'{folder / "tiny.py"}:{folder / "nuts"}', '--workdir']


@pytest.fixture(scope='module')
def finished(train, compilation, tmp_path_factory):
  """The workdirs of a run by two processes, which prepared the data, and by this one."""
  folder = tmp_path_factory.mktemp('finished')
  two, one = folder / 'two', folder / 'one'
  ended = run_command(compilation, [*train, str(two)])
  assert [status for status, *_ in ended] == [0, 0], ended
  assert jax.device_count() == 4
  assert main([*train, str(one)]) == 0
  return two, one, ended


def metrics_of(workdir):
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


def newest_state(workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(train_state.init_state(configuration.load(workdir)))


@pytest.mark.slow
def test_two_processes_train_as_one(finished):
  two, one, _ = finished
  found, expected = metrics_of(two), metrics_of(one)
  assert [line['step'] for line in found] == [2, 4, 6, 8]
  for line, other in zip(found, expected, strict=True):
    assert line.keys() == other.keys()
    # In another order of summation; the accuracies are shares of few pairs.
    np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-4)
  found, expected = (Detector.load(workdir) for workdir in (two, one))
  assert found.origin.step == expected.origin.step == 8
  np.testing.assert_allclose(
    memory_bank.to_rows(found.banks[16]), memory_bank.to_rows(expected.banks[16]), atol=1e-4
  )


@pytest.mark.slow
def test_only_the_first_process_prints_and_logs(finished):
  two, _, ((_, printed, shown), (_, others, silent)) = finished
  assert f'{two}: 8 steps' in printed
  assert 'Training' in shown
  assert [line for line in others.splitlines() if not line.startswith('[Gloo]')] == []
  assert silent == ''
  names = ['checkpoints', 'config.json', 'data.json', 'data_report.json']
  names += ['metrics.jsonl', 'model', 'tensorboard']
  assert sorted(path.name for path in two.iterdir()) == names
  assert len(list((two / 'tensorboard').iterdir())) == 1


@pytest.mark.slow
def test_two_processes_evaluate_as_one(finished, compilation):
  two, _, _ = finished
  arguments = ['eval', '--workdir', str(two), '--no-random-encoder']
  figures = []
  assert main(arguments) == 0
  figures.append(json.loads((two / 'eval' / 'metrics.json').read_text())['maps'])
  maps = dict(np.load(two / 'eval' / 'maps.npz'))
  ended = run_command(compilation, arguments)
  assert [status for status, *_ in ended] == [0, 0], ended
  figures.append(json.loads((two / 'eval' / 'metrics.json').read_text())['maps'])
  assert figures[0] == figures[1]
  np.testing.assert_allclose(np.load(two / 'eval' / 'maps.npz')['k16'], maps['k16'], rtol=1e-5)


@pytest.mark.slow
def test_a_lost_process_and_a_signal_end_all_and_the_same_command_goes_on(
  finished, train, compilation, tmp_path
):
  workdir = tmp_path / 'run'
  arguments = [*train, str(workdir)]

  def steps():
    return sorted(
      int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()
    )

  # It dies before it takes part in the save of step 4.
  (status, _, errors), (killed, *_) = run_command(
    compilation, arguments, ((0, 0), (signal.SIGKILL, 4))
  )
  assert (status, killed) == (distributed.ProcessLostError.status, -signal.SIGKILL), errors
  assert_one_line(errors, 'process 0 of 2 has lost another one')
  assert steps() == [2]

  ended = run_command(compilation, arguments, ((0, 0), (signal.SIGTERM, 4)))
  assert [status for status, *_ in ended] == [128 + signal.SIGTERM] * 2, ended
  assert f'stopped at step 4 of {workdir}' in ended[0][1]
  assert steps() == [2, 4]

  # The first one is also where the others meet: jax may abort before its error can be raised.
  (killed, *_), (status, _, errors) = run_command(
    compilation, arguments, ((signal.SIGKILL, 6), (0, 0))
  )
  assert killed == -signal.SIGKILL
  if status == -signal.SIGABRT:
    assert 'Terminating process because the JAX distributed service detected' in errors
  else:
    assert status == distributed.ProcessLostError.status, errors
    assert_one_line(errors, 'process 1 of 2 has lost another one')
  assert steps() == [2, 4]

  assert [status for status, *_ in run_command(compilation, arguments)] == [0, 0]
  assert metrics_of(workdir) == metrics_of(finished[0])
  found, expected = map(newest_state, (workdir, finished[0]))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_a_bucket_is_to_them_as_a_disk_that_they_share(
  finished, train, compilation, google_store, tmp_path
):
  arguments = [*train, f'{google_store.place}/run']
  (status, _, errors), (killed, *_) = run_command(
    compilation, arguments, ((0, 0), (signal.SIGKILL, 4))
  )
  # jax may abort before its error can be raised.
  assert status in (distributed.ProcessLostError.status, -signal.SIGABRT), errors
  assert killed == -signal.SIGKILL
  ended = run_command(compilation, arguments)
  assert [status for status, *_ in ended] == [0, 0], ended
  workdir = google_store.get('run', tmp_path / 'run')
  assert metrics_of(workdir) == metrics_of(finished[0])
  found, expected = map(newest_state, (workdir, finished[0]))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def assert_one_line(errors, words):
  """One line of ours; jax's C++ may write besides, where it is the first process that is gone."""
  lines = [line for line in errors.splitlines() if 'error: ' in line]
  assert len(lines) == 1, errors
  assert words in lines[0]
  assert 'run the same command in all processes again' in lines[0]
  assert 'Traceback' not in errors


@pytest.mark.parametrize(
  ('variables', 'words'),
  [
    ({}, 'JAX_COORDINATOR_ADDRESS'),
    ({'JAX_COORDINATOR_ADDRESS': 'host:1'}, 'JAX_NUM_PROCESSES'),
    ({'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES=two'),
  ],
  ids=['nothing', 'no number', 'no whole number'],
)
def test_processes_that_cannot_be_found_are_one_line(
  train, tmp_path, capsys, monkeypatch, variables, words
):
  monkeypatch.setattr('jax._src.xla_bridge.backends_are_initialized', lambda: False)
  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert main([*train, str(tmp_path / 'run'), '--distributed']) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith('error: ')
  assert printed.err.count('\n') == 1
  assert words in printed.err
  assert not (tmp_path / 'run').exists()
