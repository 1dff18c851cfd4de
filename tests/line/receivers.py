"""Receivers in this process: an HTTP server that answers as it is told, and a real MQTT broker."""

import asyncio
import contextlib
import http.server
import json
import socket
import threading

from paho.mqtt.client import CallbackAPIVersion, Client


class Hook(http.server.ThreadingHTTPServer):
  """Notes each post; `answer` says with which status, or None to hang up."""

  daemon_threads = True

  def __init__(self, answer=lambda number: 204, port=0):
    self.posts, self.answer = [], answer
    super().__init__(('127.0.0.1', port), _Handler)
    self.url = f'http://127.0.0.1:{self.server_port}/in?line=3'

  def __enter__(self):
    threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
    return self

  def __exit__(self, *_):
    self.shutdown()
    self.server_close()

  @property
  def accepted(self):
    """The records that it has taken, in order."""
    return [json.loads(body) for status, _, body in self.posts if status and status < 300]


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = self.rfile.read(int(self.headers['content-length']))
    status = self.server.answer(len(self.server.posts))
    self.server.posts.append((status, self.headers, body))
    if status is None:
      return
    self.send_response(status)
    if status in (301, 302):
      self.send_header('Location', 'http://127.0.0.1:9/elsewhere')
    self.end_headers()

  def log_message(self, *_):
    pass


def free_port():
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


class Broker:
  """A broker of amqtt in a thread, which can be stopped and started again.

  Attributes:
    port: that it listens on.
  """

  def __init__(self, users=None, certificate=None):
    self.port = free_port()
    listener = {'type': 'tcp', 'bind': f'127.0.0.1:{self.port}'}
    if certificate:
      listener |= {'ssl': True, 'certfile': str(certificate[0]), 'keyfile': str(certificate[1])}
    plugin = {'amqtt.plugins.authentication.AnonymousAuthPlugin': {'allow_anonymous': not users}}
    if users:
      plugin = {'amqtt.plugins.authentication.FileAuthPlugin': {'password_file': str(users)}}
    self._config = {'listeners': {'default': listener}, 'plugins': plugin}

  def start(self):
    started = threading.Event()
    self._loop = asyncio.new_event_loop()

    async def begin():
      from amqtt.broker import Broker as OfAmqtt

      self._broker = OfAmqtt(self._config)
      await self._broker.start()
      started.set()

    def run():
      asyncio.set_event_loop(self._loop)
      self._loop.run_until_complete(begin())
      self._loop.run_forever()

    self._thread = threading.Thread(target=run, daemon=True)
    self._thread.start()
    assert started.wait(10)

  def stop(self):
    asyncio.run_coroutine_threadsafe(self._broker.shutdown(), self._loop).result(10)
    self._loop.call_soon_threadsafe(self._loop.stop)
    self._thread.join(10)
    self._loop.close()

  def __enter__(self):
    self.start()
    return self

  def __exit__(self, *_):
    self.stop()


@contextlib.contextmanager
def subscribed(port, topic, user=None, password=None, certificate=None):
  """The payloads that come on a topic, while this lasts."""
  got, ready = [], threading.Event()
  client = Client(CallbackAPIVersion.VERSION2)
  client.reconnect_delay_set(1, 1)
  if user:
    client.username_pw_set(user, password)
  if certificate:
    client.tls_set(str(certificate))
  client.on_message = lambda _, __, message: got.append(json.loads(message.payload))
  client.on_connect = lambda *_: client.subscribe(topic, 1)
  client.on_subscribe = lambda *_: ready.set()
  client.connect('127.0.0.1', port)
  client.loop_start()
  assert ready.wait(10)
  try:
    yield got
  finally:
    client.disconnect()
    client.loop_stop()
