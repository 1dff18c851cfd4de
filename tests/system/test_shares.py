"""Shares of something limited, by accounting: never too much, each in turn, all in the end."""

import concurrent.futures
import random
import threading
import time

import pytest

from patch_svdd_jax.system.shares import Shares


def test_no_more_is_taken_than_there_is():
  shares, lock, held, most = Shares(10), threading.Lock(), [0], []
  amounts = random.Random(0).choices([0, 1, 3, 7, 10, 25], k=400)

  def use(amount):
    with shares.take(amount):
      with lock:
        held[0] += min(amount, 10)
        most.append(held[0])
      with lock:
        held[0] -= min(amount, 10)

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(use, amounts))
  assert len(most) == 400
  assert max(most) <= 10


def test_a_large_part_is_not_put_off():
  """Small ones that ask later wait until it was served, though there is room for them."""
  shares, order = Shares(10), []
  asked = threading.Semaphore(0)

  def use(name, amount):
    asked.release()
    with shares.take(amount):
      order.append(name)

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    with shares.take(1):
      large = pool.submit(use, 'large', 10)
      asked.acquire()
      time.sleep(0.05)
      small = pool.submit(use, 'small', 1)
      asked.acquire()
      time.sleep(0.05)
      assert not order
    concurrent.futures.wait([large, small])
  assert order == ['large', 'small']


def test_what_was_taken_comes_back_after_an_error():
  shares = Shares(1)
  for _ in range(3):
    with pytest.raises(KeyError), shares.take(5):
      raise KeyError
  with shares.take(1):
    pass
