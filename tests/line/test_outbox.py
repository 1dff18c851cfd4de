"""Receivers that are away, refuse, fail at random: each event once, in order, over restarts."""

import json
import logging
import random
import threading
import time

import pytest

from patch_svdd_jax.line import outbox
from patch_svdd_jax.line.journal import Journal
from patch_svdd_jax.line.outbox import AwayError, Outbox, RefusedError


class Receiver:
  """Notes what it gets; `fails` says what it raises instead."""

  name = 'receiver'

  def __init__(self, fails=lambda event: None):
    self.got, self.fails, self.tries = [], fails, 0

  def send(self, event):
    self.tries += 1
    if error := self.fails(event):
      raise error
    self.got.append(json.loads(event.body)['image'])

  def close(self):
    pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(outbox, 'FIRST_WAIT', 0.001)
  monkeypatch.setattr(outbox, 'LONGEST_WAIT', 0.002)


@pytest.fixture
def journal(tmp_path):
  with_events = Journal(tmp_path)
  yield with_events
  with_events.close()


def add(journal, numbers):
  journal.add([{'id': journal.next_id(), 'image': number} for number in numbers])


def end(box, seconds=5.0):
  box.stop(time.monotonic() + seconds)
  box.join()


def until(condition):
  deadline = time.monotonic() + 10
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.001)
  assert condition()


def test_every_event_comes_once_and_in_order_though_tries_fail_at_random(journal):
  rng = random.Random(0)
  receiver = Receiver(lambda event: AwayError('?') if rng.random() < 0.4 else None)
  box = Outbox(journal, receiver)
  for number in range(0, 60, 3):
    add(journal, range(number, number + 3))
  until(lambda: not box.waiting)
  end(box)
  assert receiver.got == list(range(60))
  assert receiver.tries > 60


def test_what_was_not_taken_waits_for_the_next_start(journal):
  away = Receiver(lambda event: AwayError('no route') if len(away.got) == 2 else None)
  box = Outbox(journal, away)
  add(journal, range(5))
  until(lambda: away.tries > 4)
  end(box)
  assert box.waiting == 3
  add(journal, range(5, 7))
  back = Receiver()
  box = Outbox(journal, back)
  end(box)
  assert (away.got, back.got) == ([0, 1], [2, 3, 4, 5, 6])


def test_a_new_receiver_gets_no_old_results_and_one_of_another_stream_all(journal, tmp_path):
  add(journal, range(3))
  receiver = Receiver()
  end(Outbox(journal, receiver))
  assert receiver.got == []
  (tmp_path / 'outbox' / 'receiver.json').write_text(
    '{"stream": "other", "position": 7, "number": 1}'
  )
  end(Outbox(journal, receiver))
  assert receiver.got == [0, 1, 2]


def test_a_damaged_position_is_said_and_all_comes_again(journal, tmp_path, caplog):
  add(journal, range(2))
  (tmp_path / 'outbox').mkdir()
  (tmp_path / 'outbox' / 'receiver.json').write_text('{')
  receiver = Receiver()
  end(Outbox(journal, receiver))
  assert receiver.got == [0, 1]
  assert 'gets all results again' in caplog.text


def test_an_event_that_is_refused_is_noted_and_the_next_one_sent(journal, tmp_path, caplog):
  receiver = Receiver(lambda event: RefusedError('HTTP 422') if event.id.endswith('2') else None)
  box = Outbox(journal, receiver)
  add(journal, range(4))
  end(box)
  assert receiver.got == [0, 2, 3]
  [noted] = (tmp_path / 'outbox' / 'receiver.refused.jsonl').read_text().splitlines()
  assert json.loads(noted) == {'id': f'{journal.stream}-000000002', 'reason': 'HTTP 422'}
  assert 'refuses' in caplog.text


def test_going_and_coming_back_are_said_once(journal, caplog):
  caplog.set_level(logging.WARNING)
  receiver = Receiver(lambda event: AwayError('gone') if receiver.tries < 5 else None)
  box = Outbox(journal, receiver)
  add(journal, range(2))
  until(lambda: not box.waiting)
  end(box)
  texts = [record.getMessage() for record in caplog.records]
  assert [text.split(' (')[0].split(' after')[0] for text in texts] == [
    'receiver is away',
    'receiver is back',
  ]


def test_the_end_waits_no_longer_than_it_may(journal):
  stuck = threading.Event()
  receiver = Receiver(lambda event: stuck.wait(20) and None)
  box = Outbox(journal, receiver)
  add(journal, range(2))
  begun = time.monotonic()
  end(box, 0.1)
  assert time.monotonic() - begun < 3
  stuck.set()
