"""Sockets: many clients at once, those that vanish or dawdle, ports that are taken."""

import asyncio
import resource
import socket
import time

import httpx
import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.serving import server
from tests.serving.fake import FakeScorer, file_of, post


def test_two_hundred_clients_at_once_get_their_own_answers(start_server):
  scorer = FakeScorer(seconds=0.03)
  address = start_server(scorer, places=256)
  levels = np.random.default_rng(0).integers(14, 256, 200)
  contents = {int(level): file_of(int(level), (200, 200)) for level in levels}

  async def ask(client, number, level):
    answer = await post(client, contents[level], f'{number}.png', '?map=true')
    assert answer.status_code == 200, answer.text
    return answer.json()

  async def run():
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
      asked = [ask(client, number, int(level)) for number, level in enumerate(levels)]
      return await asyncio.gather(*asked)

  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  answers = asyncio.run(run())
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert [each['image'] for each in answers] == [f'{number}.png' for number in range(200)]
  assert [each['score'] for each in answers] == levels.tolist()
  assert sum(scorer.batches) == 200
  assert max(scorer.batches) == scorer.batch_size
  assert len(scorer.threads) == 1
  assert grown < 100 * 2**10  # KiB; clients included


def send(address, text):
  host, port = address.removeprefix('http://').split(':')
  connection = socket.create_connection((host, int(port)), timeout=20)
  connection.sendall(text)
  return connection


HEAD = (
  b'POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\n'
  b'Content-Type: image/png\r\nContent-Length: %d\r\n\r\n'
)


def queue_length(address):
  return httpx.get(f'{address}/health').json()['queue']['length']


def wait_for_queue(address, length):
  deadline = time.monotonic() + 20
  while queue_length(address) != length:
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_clients_that_vanish_break_nothing(start_server, caplog):
  scorer = FakeScorer()
  address = start_server(scorer, places=4)
  content = file_of(50)
  for _ in range(8):  # twice the places, while they upload
    send(address, HEAD % 1000 + content).close()
  wait_for_queue(address, 0)
  scorer.go.clear()
  waiting = [send(address, HEAD % len(content) + content) for _ in range(3)]
  wait_for_queue(address, 3)
  for connection in waiting:  # while they wait
    connection.close()
  scorer.go.set()
  wait_for_queue(address, 0)
  assert httpx.post(f'{address}/score', files={'image': content}).json()['score'] == 50
  assert not caplog.records


def test_who_sends_no_request_is_hung_up_on(start_server, monkeypatch):
  monkeypatch.setattr(server, 'HEAD_SECONDS', 0.3)
  address = start_server(FakeScorer())
  first = b'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
  for text in (b'', b'POST /score HT', first, first + b'GET'):
    with send(address, text) as connection:
      answer = b''
      while part := connection.recv(10**5):  # until it ends; 20 seconds at most
        answer += part
      assert (b'200 OK' in answer) == (text.startswith(first))
  assert queue_length(address) == 0


def test_at_the_end_what_is_under_way_is_answered(start_server):
  scorer = FakeScorer()
  address = start_server(scorer)

  async def run():
    async with httpx.AsyncClient(base_url=address, timeout=20) as client:
      scorer.go.clear()
      asked = [asyncio.create_task(post(client, file_of(level))) for level in range(40, 50)]
      while (await client.get('/health')).json()['queue']['length'] < 10:
        await asyncio.sleep(0.02)
      start_server.end()
      await asyncio.sleep(0.5)
      with pytest.raises(httpx.TransportError):
        await client.get('/health')
      assert not any(each.done() for each in asked)
      scorer.go.set()
      return [(await each).json()['score'] for each in asked]

  assert asyncio.run(run()) == [*range(40, 50)]


def test_a_port_that_is_taken_is_said():
  with server.bind('127.0.0.1', 0) as taken:
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(UserError, match=rf'cannot listen on 127.0.0.1, port {port} \(.*in use\)'):
      server.bind('127.0.0.1', port)
  for host, port in (('203.0.113.7', 0), ('127.0.0.1', 70_000)):
    with pytest.raises(UserError, match='give another --port or --host'):
      server.bind(host, port)
