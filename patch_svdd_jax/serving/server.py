"""The server around the app: its socket, its patience, its end."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import signals

# Seconds within which a connection must have sent the head of a request, from its beginning or from
# the answer before; and within which what is under way at the end must be answered.
HEAD_SECONDS, END_SECONDS = 15, 60
CONNECTIONS = 500


class PatientProtocol(H11Protocol):
  """Ends connections that send no whole request head in time.

  uvicorn has no such limit for the first request of a connection, nor for one that has begun.
  """

  _deadline: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    """Sets the first deadline."""
    super().connection_made(transport)
    self._await_head()

  def on_response_complete(self) -> None:
    """Sets the next one."""
    super().on_response_complete()
    self._await_head()

  def connection_lost(self, exc: Exception | None) -> None:
    """Forgets it."""
    if self._deadline:
      self._deadline.cancel()
    super().connection_lost(exc)

  def _await_head(self) -> None:
    if self._deadline:
      self._deadline.cancel()
    self._deadline = self.loop.call_later(HEAD_SECONDS, self._end_without_request)

  def _end_without_request(self) -> None:
    if self.cycle is None or self.cycle.response_complete:
      self.transport.close()


class _Server(uvicorn.Server):
  """Leaves signals alone.

  uvicorn would raise those that end it once more, and a second one ends a command at once.
  """

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Captures none."""
    yield


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket on an address, not listening yet; port 0 takes a free one.

  Raises:
    UserError: the port is in use, or the address is not this machine's.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  bound = socket.socket(family)
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
  except (OSError, OverflowError) as error:
    bound.close()
    reason = error.strerror if isinstance(error, OSError) else error
    raise UserError(
      f'cannot listen on {host}, port {port} ({reason}): give another --port or --host'
    ) from error
  return bound


def serve(app: FastAPI, bound: socket.socket) -> None:
  """Serves until SIGTERM or Ctrl-C: then what is under way is answered, and nothing else."""
  # It writes several lines about each malformed form, which is answered with the reason.
  logging.getLogger('python_multipart').setLevel(logging.ERROR)
  config = uvicorn.Config(
    app,
    http=PatientProtocol,
    ws='none',
    loop='asyncio',
    lifespan='on',
    log_config=None,
    access_log=False,
    server_header=False,
    proxy_headers=False,
    limit_concurrency=CONNECTIONS,
    timeout_keep_alive=5,
    timeout_graceful_shutdown=END_SECONDS,
  )
  server = _Server(config)

  def stop(*_: int | FrameType | None) -> None:
    server.should_exit = True

  before: dict[int, Any] = {
    number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    with signals.patient(None):
      server.run(sockets=[bound])
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
