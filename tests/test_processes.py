"""Several processes, and any number of devices, against one process of four devices."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from patch_svdd_jax import memory_bank, nearest
from patch_svdd_jax.detector import Detector
from tests import banks
from tests.test_detector import random_images, random_params, tiny_config

ROOT = pathlib.Path(__file__).parents[1]
TRAIN, TEST = random_images(1, 5), random_images(2, 3)


def results():
  """What every process has to find, by name."""
  found = {}
  rows, queries = banks.make(banks.duplicates)
  for name, small in (('copied', 2**20), ('divided', 0)):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(memory_bank, 'SMALL', small)
      bank = memory_bank.from_rows(rows)
      assert bank.layout.divided == (name == 'divided')
      neighbours = nearest.search(queries, bank, 3, query_block=64)
      found |= {
        f'{name} rows': memory_bank.to_rows(bank),
        f'{name} distances': neighbours.distances,
        f'{name} indices': neighbours.indices,
      }
      config = tiny_config()
      config.encoder.scales, config.score.strides = (16,), (4,)
      config.score.coreset = 0.25 if name == 'copied' else 1
      detector = Detector.fit(config, random_params(config), TRAIN, step=7)
      found[f'{name} embeddings'] = memory_bank.to_rows(detector.banks[16])
  scores = detector.score(TEST)
  return found | {'patches': scores.distances['k16'], 'images': scores.images['k16']}


def work(process, processes, devices, address, settings, folder):
  """The main program of one process: writes its results into the folder."""
  for name, value in settings.items():
    jax.config.update(name, value)
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_numpy_rank_promotion', 'raise')
  jax.config.update('jax_num_cpu_devices', devices)
  if processes > 1:
    jax.distributed.initialize(address, processes, process)
  assert (jax.process_count(), jax.local_device_count()) == (processes, devices)
  assert jax.device_count() == processes * devices
  np.savez(pathlib.Path(folder) / f'{process}.npz', **results())


def free_address():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{listener.getsockname()[1]}'


def start(processes, devices, settings, folder):
  """Processes at work; what they wrote is read by `finish`."""
  # Without the flag that gives pytest's own process four devices.
  flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
  environment = os.environ | {'XLA_FLAGS': ' '.join(flags)}
  common = processes, devices, free_address(), settings, str(folder)
  return [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        f'from tests import test_processes; test_processes.work(*{(process, *common)!r})',
      ],
      cwd=ROOT,
      env=environment,
    )
    for process in range(processes)
  ]


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
def runs(quick_compilation, tmp_path_factory):
  """The results of this process, and of all processes of each of the others' runs."""
  folders = {shape: tmp_path_factory.mktemp('run') for shape in ((2, 2), (1, 8))}
  started = {shape: start(*shape, quick_compilation, folder) for shape, folder in folders.items()}
  assert (jax.process_count(), jax.local_device_count()) == (1, 4)
  # While they work, so does this process.
  here = results()
  return here, {shape: finish(started[shape], folders[shape]) for shape in folders}


@pytest.mark.parametrize('shape', [(2, 2), (1, 8)])
def test_processes_and_devices_change_nothing(shape, runs):
  here, others = runs
  assert len(others[shape]) == shape[0]
  for found in others[shape]:
    assert found.keys() == here.keys()
    for name, values in here.items():
      # The maps are added up in another order.
      tolerance = 1e-6 if name == 'images' else 0
      np.testing.assert_allclose(found[name], values, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize('bank', ['copied', 'divided'])
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
    {row.tobytes() for row in found[f'{bank} embeddings']} for bank in ('copied', 'divided')
  )
  assert len(found['divided embeddings']) == 5 * 7 * 9
  assert len(kept) == len(found['copied embeddings']) == round(5 * 7 * 9 / 4)
  assert kept < embeddings
