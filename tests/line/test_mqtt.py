"""Events on a topic of a real broker, which goes and comes; addresses, users, TLS."""

import subprocess
import threading
import time

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line import mqtt
from patch_svdd_jax.line.journal import Event
from patch_svdd_jax.line.mqtt import Address, Mqtt
from patch_svdd_jax.line.outbox import AwayError
from tests.line.receivers import Broker, free_port, subscribed

TOPIC = 'plant/line 3/results'


def event(number):
  return Event(f'7f3a-{number:09d}', b'{"id": "7f3a-%09d"}' % number, 0)


def numbers(got):
  return [int(each['id'].split('-')[1]) for each in got]


def until(condition):
  deadline = time.monotonic() + 10
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert condition()


@pytest.mark.parametrize(
  ('text', 'address'),
  [
    ('broker/a/b c', Address('broker', 1883, 'a/b c', False)),
    ('mqtt://broker:1884/a', Address('broker', 1884, 'a', False)),
    ('mqtts://10.0.0.7/a', Address('10.0.0.7', 8883, 'a', True)),
    ('[::1]:1885/a', Address('::1', 1885, 'a', False)),
  ],
)
def test_addresses(text, address):
  assert mqtt.parse(text) == address


@pytest.mark.parametrize(
  'text',
  ['broker', 'broker/', 'broker:0/a', 'broker:70000/a', 'http://broker/a', 'broker/a/+/b', 'b/#'],
)
def test_what_is_no_address(text):
  with pytest.raises(UserError, match='--mqtt'):
    mqtt.parse(text)


def test_each_event_is_published_once_and_in_order():
  with Broker() as broker, subscribed(broker.port, TOPIC) as got:
    sink = Mqtt(Address('127.0.0.1', broker.port, TOPIC, False))
    for number in range(20):
      sink.send(event(number))
    until(lambda: len(got) == 20)
    sink.close()
  assert numbers(got) == list(range(20))


@pytest.mark.slow
def test_a_broker_that_is_away_gets_what_it_missed_once(monkeypatch):
  monkeypatch.setattr(mqtt, 'PATIENCE', 0.3)
  monkeypatch.setattr(mqtt, 'RECONNECT', (1, 1))
  broker = Broker()
  sink = Mqtt(Address('127.0.0.1', broker.port, TOPIC, False))
  with pytest.raises(AwayError):
    sink.send(event(0))
  broker.start()
  with subscribed(broker.port, TOPIC) as first:
    until(lambda: sends(sink, 0))
    sink.send(event(1))
    until(lambda: len(first) == 2)
  broker.stop()
  assert not sends(sink, 2)
  assert not sends(sink, 2)
  broker.start()
  # A client that is back may be faster than a receiver that subscribes anew.
  until(lambda: sends(sink, 2))
  with subscribed(broker.port, TOPIC) as second:
    sink.send(event(3))
    until(lambda: second)
    time.sleep(0.3)
  sink.close()
  broker.stop()
  assert numbers(first) == [0, 1]
  assert numbers(second) == [3]


def sends(sink, number):
  try:
    sink.send(event(number))
  except AwayError:
    return False
  return True


def test_a_broker_that_is_not_there_is_away_and_the_end_does_not_wait_for_it(monkeypatch):
  monkeypatch.setattr(mqtt, 'PATIENCE', 0.05)
  sink = Mqtt(Address('127.0.0.1', free_port(), TOPIC, False))
  assert not sends(sink, 0)
  closing = threading.Thread(target=sink.close)
  closing.start()
  closing.join(3)
  assert not closing.is_alive()


# The broker's own tasks stumble over a connection that it has refused.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.slow
def test_users_and_tls(tmp_path, monkeypatch):
  key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
  make = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2']
  name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  subprocess.run(
    [*make, *name, '-keyout', key, '-out', certificate], check=True, capture_output=True
  )
  from pwdlib import PasswordHash

  users = tmp_path / 'users'
  users.write_text(f'line:{PasswordHash.recommended().hash("quiet")}\n')
  monkeypatch.setattr(mqtt, 'PATIENCE', 1.0)
  with Broker(users, (certificate, key)) as broker:
    address = Address('127.0.0.1', broker.port, TOPIC, True)
    stranger = Mqtt(address)
    assert not sends(stranger, 0)  # nobody vouches for the certificate
    stranger.close()
    monkeypatch.setenv('SSL_CERT_FILE', str(certificate))
    wrong = Mqtt(address, 'line', 'loud')
    with pytest.raises(AwayError, match=r'[Nn]ot authori[sz]ed|[Bb]ad user'):
      wrong.send(event(0))
    wrong.close()
    with subscribed(broker.port, TOPIC, 'line', 'quiet', certificate) as got:
      sink = Mqtt(address, 'line', 'quiet')
      sink.send(event(0))
      until(lambda: got)
      sink.close()
  assert numbers(got) == [0]
