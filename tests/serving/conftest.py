"""Servers with real sockets, on free ports of this machine, in threads."""

import threading
import time

import pytest
import uvicorn

from patch_svdd_jax.serving import server
from patch_svdd_jax.serving.app import make_app
from tests.serving.fake import BOUNDS


@pytest.fixture
def start_server(monkeypatch):
  """A function of a scorer that returns an address; its `end` ends all, as a signal does."""
  running, started = [], []
  run = uvicorn.Server.run

  def remember(self, *arguments, **options):
    started.append(self)
    run(self, *arguments, **options)

  monkeypatch.setattr(uvicorn.Server, 'run', remember)
  # Only the main thread may set handlers.
  monkeypatch.setattr(server.signal, 'signal', lambda *_: None)

  def start(scorer, places=64, bounds=BOUNDS, **options):
    bound = server.bind('127.0.0.1', 0)
    app = make_app(scorer, bounds, places=places, **options)
    thread = threading.Thread(target=server.serve, args=(app, bound), daemon=True)
    thread.start()
    running.append(thread)
    deadline = time.monotonic() + 20
    while not (len(started) == len(running) and started[-1].started):
      assert time.monotonic() < deadline
      time.sleep(0.02)
    return f'http://127.0.0.1:{bound.getsockname()[1]}'

  def end():
    for each in started:
      each.should_exit = True

  start.end = end
  yield start
  end()
  for thread in running:
    thread.join(20)
    assert not thread.is_alive()
