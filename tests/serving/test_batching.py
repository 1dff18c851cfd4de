"""Every item gets its own result, in batches of what waits, by one thread, and within bounds."""

import concurrent.futures
import threading
import time

import pytest

from patch_svdd_jax.serving import batching
from patch_svdd_jax.serving.batching import Batcher, FullError


def start(work, batch_size=4, places=100):
  return Batcher(work, batch_size=lambda: batch_size, grow=lambda: False, places=places)


def test_results_belong_to_their_items_and_batches_are_what_waits():
  go, batches, threads = threading.Event(), [], set()

  def work(items):
    assert go.wait(10)
    batches.append(items)
    threads.add(threading.get_ident())
    return [item**2 for item in items]

  batcher = start(work)
  first = batcher.submit(0)
  futures = [batcher.submit(item) for item in range(1, 11)]
  go.set()
  assert first.result(10) == 0
  assert [future.result(10) for future in futures] == [item**2 for item in range(1, 11)]
  batcher.close()
  assert [item for batch in batches for item in batch] == list(range(11))
  assert all(len(batch) <= 4 for batch in batches)
  assert len(batches) <= 4  # the first item may be alone, or not
  assert len(threads) == 1
  assert threading.get_ident() not in threads


def test_from_many_threads_nothing_is_lost():
  batcher = start(lambda items: [item + 1 for item in items], batch_size=7)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda item: batcher.submit(item).result(10), range(2000)))
  batcher.close()
  assert found == list(range(1, 2001))


def test_places_are_bounded_and_given_back():
  batcher = start(list, places=2)
  with batcher.place(), batcher.place():
    assert batcher.taken == 2
    with pytest.raises(FullError), batcher.place():
      pass
  assert batcher.taken == 0
  with pytest.raises(KeyError), batcher.place():
    raise KeyError
  assert batcher.taken == 0
  batcher.close()


def test_a_batch_that_fails_fails_alone(caplog):
  def work(items):
    return [1 // item for item in items]

  batcher = start(work, batch_size=1)
  bad, good = batcher.submit(0), batcher.submit(1)
  with pytest.raises(ZeroDivisionError):
    bad.result(10)
  assert good.result(10) == 1
  batcher.close()
  assert 'a batch of 1 images failed' in caplog.text


def test_what_is_cancelled_is_not_worked_on():
  go, seen = threading.Event(), []

  def work(items):
    assert go.wait(10)
    seen.extend(items)
    return items

  batcher = start(work, batch_size=1)
  futures = [batcher.submit(item) for item in range(4)]
  assert futures[2].cancel()
  go.set()
  assert futures[3].result(10) == 3
  batcher.close()
  assert seen == [0, 1, 3]


def test_closing_works_on_what_waits_and_takes_no_more():
  go = threading.Event()
  batcher = start(lambda items: [go.wait(10) for _ in items], batch_size=2)
  futures = [batcher.submit(item) for item in range(5)]
  closing = threading.Thread(target=batcher.close)
  closing.start()
  go.set()
  closing.join(10)
  assert not closing.is_alive()
  assert [future.result(0) for future in futures] == [True] * 5
  with pytest.raises(FullError):
    batcher.submit(6)
  with pytest.raises(FullError), batcher.place():
    pass
  batcher.close()


class Growing:
  """Work in batches of 1, then 4, then 8; notes what it did in which order, and the thread."""

  def __init__(self, fails=False):
    self.sizes, self.done, self.threads = [1, 4, 8], [], set()
    self.fails = fails
    self.go = threading.Event()

  def work(self, items):
    assert self.go.wait(10)
    self.threads.add(threading.get_ident())
    self.done.append(len(items))
    return items

  def grow(self):
    self.threads.add(threading.get_ident())
    if self.fails:
      raise MemoryError('too large')
    if len(self.sizes) > 1:
      self.sizes.pop(0)
      self.done.append(f'grown to {self.sizes[0]}')
      return True
    self.done.append('grown up')
    return False

  def start(self):
    return Batcher(self.work, batch_size=lambda: self.sizes[0], grow=self.grow, places=100)


def wait_for(happened):
  deadline = time.monotonic() + 10
  while not happened():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_batches_grow_when_nothing_waits(monkeypatch):
  monkeypatch.setattr(batching, 'IDLE_SECONDS', 0.05)
  growing = Growing()
  batcher = growing.start()
  growing.go.set()
  wait_for(lambda: 'grown up' in growing.done)
  assert growing.done == ['grown to 4', 'grown to 8', 'grown up']
  assert batcher.submit(1).result(10) == 1
  batcher.close()
  assert len(growing.threads) == 1


def test_one_item_is_worked_on_before_and_many_after_batches_have_grown(monkeypatch):
  monkeypatch.setattr(batching, 'IDLE_SECONDS', 3600)
  growing = Growing()
  batcher = growing.start()
  first = batcher.submit(0)
  time.sleep(0.1)
  futures = [batcher.submit(item) for item in range(1, 15)]
  growing.go.set()
  assert first.result(10) == 0
  assert [future.result(10) for future in futures] == [*range(1, 15)]
  batcher.close()
  assert growing.done == [1, 'grown to 4', 4, 'grown to 8', 8, 2]


def test_batches_that_cannot_grow_stay_small(monkeypatch, caplog):
  monkeypatch.setattr(batching, 'IDLE_SECONDS', 0.01)
  growing = Growing(fails=True)
  growing.go.set()
  batcher = growing.start()
  wait_for(lambda: 'batches of more than 1 images are done without' in caplog.text)
  futures = [batcher.submit(item) for item in range(9)]
  assert [future.result(10) for future in futures] == [*range(9)]
  batcher.close()
  assert growing.done == [1] * 9
  assert len(caplog.records) == 1
