"""Results published on an MQTT topic with quality of service 1: at least once, in order."""

import re
import threading
from typing import Any, NamedTuple

from paho.mqtt.client import CallbackAPIVersion, Client

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line.journal import Event
from patch_svdd_jax.line.outbox import AwayError

PORT, TLS_PORT = 1883, 8883
# Seconds for which an acknowledgement is waited for before the broker counts as away; between two
# tries to connect, at least and at most.
PATIENCE = 10.0
RECONNECT = (1, 30)


class Address(NamedTuple):
  """Where to publish: a broker, whether by TLS, and a topic."""

  host: str
  port: int
  topic: str
  tls: bool


def parse(text: str) -> Address:
  """Returns the address that `[mqtt://|mqtts://]HOST[:PORT]/TOPIC` names.

  Raises:
    UserError: it names none, or a pattern of topics.
  """
  found = re.fullmatch(r'(mqtts?://)?(\[[^\]/]+\]|[^:/@\s]+)(?::(\d{1,5}))?/(.+)', text)
  if not found or not 0 < int(found[3] or 1) < 2**16:
    raise UserError('--mqtt: give HOST/TOPIC, HOST:PORT/TOPIC or mqtts://HOST/TOPIC')
  if set('+#\0') & set(found[4]):
    raise UserError(f'--mqtt: {found[4]!r} is no topic to publish on: leave out + and #')
  tls = found[1] == 'mqtts://'
  port = int(found[3]) if found[3] else TLS_PORT if tls else PORT
  return Address(found[2].strip('[]'), port, found[4], tls)


class Mqtt:
  """Publishes each event, and waits for its acknowledgement before the next one.

  The client sends again by itself what was not acknowledged when a connection was lost, so an event
  is handed to it once, however often `send` is called for it.
  """

  name = 'mqtt'

  def __init__(self, address: Address, user: str | None = None, password: str | None = None):
    self._topic = address.topic
    self._connected, self._acknowledged = threading.Event(), threading.Event()
    self._why = 'no connection'
    self._handed: str | None = None
    client = self._client = Client(CallbackAPIVersion.VERSION2)
    if user is not None:
      client.username_pw_set(user, password)
    if address.tls:
      client.tls_set()
    client.on_connect = self._on_connect
    client.on_disconnect = self._on_disconnect
    client.on_publish = self._on_publish
    client.reconnect_delay_set(*RECONNECT)
    client.connect_async(address.host, address.port)
    client.loop_start()

  def _on_connect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
    if reason.is_failure:
      self._why = str(reason)
    else:
      self._connected.set()

  def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
    # After a connection that was refused there is another reason.
    if self._connected.is_set():
      self._connected.clear()
      self._why = f'the connection was lost: {reason}'

  def _on_publish(self, *_: Any) -> None:
    self._acknowledged.set()

  def send(self, event: Event) -> None:
    """Publishes it; see `Sink`."""
    if self._handed != event.id:
      if not self._connected.wait(PATIENCE):
        raise AwayError(self._why)
      self._acknowledged.clear()
      self._handed = event.id
      self._client.publish(self._topic, event.body, qos=1)
    if not self._acknowledged.wait(PATIENCE):
      raise AwayError('no acknowledgement' if self._connected.is_set() else self._why)

  def close(self) -> None:
    """Says good-bye to the broker."""
    self._client.disconnect()
    self._client.loop_stop()
