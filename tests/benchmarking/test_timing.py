"""Contenders take turns, and the time is that of their calls."""

import time

import numpy as np

from patch_svdd_jax.benchmarking import timing


def test_contenders_take_turns_and_change_their_neighbours():
  calls = []
  contenders = {name: lambda name=name: calls.append(name) for name in 'abc'}
  seconds = timing.interleave(contenders, range(3))
  assert calls == [*'abc', *'cba', *'abc']
  assert {name: values.shape for name, values in seconds.items()} == dict.fromkeys('abc', (3,))


def test_each_call_has_its_own_seconds():
  naps = iter([0.0, 0.03, 0.06])
  contenders = {'nap': lambda: time.sleep(next(naps)), 'none': lambda: None}
  seconds = timing.interleave(contenders, range(3))
  assert (seconds['nap'] >= [0.0, 0.03, 0.06]).all()
  assert np.median(seconds['none']) < 0.03
