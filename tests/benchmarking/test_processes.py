"""Processes that work when they are asked, and how they end."""

import operator
import os

import numpy as np
import psutil
import pytest

from patch_svdd_jax.benchmarking.preparation import read_own
from patch_svdd_jax.benchmarking.processes import Worker, isolated
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation.evaluate import peak_memory


def test_a_worker_keeps_what_it_made():
  with Worker() as worker:
    process = psutil.Process(worker.ask(os.getpid))
    assert process.ppid() == os.getpid()
    worker.keep(list, 'abc')
    worker.ask(list.append, 'd')
    assert worker.ask(len) == 4
    assert worker.ask(operator.getitem, 3) == 'd'
    with pytest.raises(RuntimeError, match=r'(?s)^Traceback .*IndexError'):
      worker.ask(operator.getitem, 4)
    assert worker.ask(len) == 4
  assert not process.is_running()


def test_an_error_for_people_stays_one(tmp_path):
  with pytest.raises(UserError, match=f'no fitted detector in {tmp_path}: train first'):
    isolated(read_own, tmp_path)


def test_a_process_that_is_gone_is_said():
  with pytest.raises(UserError, match=r'ended by itself \(status 3\)'):
    isolated(os._exit, 3)


def test_the_peak_is_not_that_of_who_started_it():
  block = np.ones(2**29, np.uint8)
  assert isolated(peak_memory) < psutil.Process().memory_info().rss
  del block
