"""Every item gets its own result, in batches of what waits, by one thread, and within bounds."""

import concurrent.futures
import threading

import pytest

from patch_svdd_jax.serving.batching import Batcher, FullError


def start(work, batch_size=4, places=100):
  return Batcher(work, batch_size=batch_size, places=places)


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
