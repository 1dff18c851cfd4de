"""Posts and their signatures; what an answer means."""

import base64
import hashlib
import hmac
import time

import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line import webhook
from patch_svdd_jax.line.journal import Event
from patch_svdd_jax.line.outbox import AwayError, RefusedError
from patch_svdd_jax.line.webhook import Webhook
from tests.line.receivers import Hook, free_port

EVENT = Event('7f3a-000000001', b'{"id": "7f3a-000000001", "image": "a.png"}', 43)


def test_the_signature_is_that_of_the_standard():
  # Of the package standardwebhooks 1.0 for the secret, id, time and body of its documentation.
  key = webhook.key_of('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
  made = webhook.signature(key, 'msg_p5jXN8AQM9LWM0D4loKWxJek', 1614265330, b'{"test": 2432232314}')
  assert made == 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='


def test_a_receiver_can_check_what_it_gets():
  with Hook() as hook:
    Webhook(hook.url, b'secret', clock=lambda: 1700000000.9).send(EVENT)
  [(_, headers, body)] = hook.posts
  assert body == EVENT.body
  assert headers['webhook-id'] == EVENT.id
  assert headers['Content-Type'] == 'application/json'
  signed = f'{EVENT.id}.1700000000.'.encode() + body
  expected = base64.b64encode(hmac.new(b'secret', signed, hashlib.sha256).digest()).decode()
  assert headers['webhook-signature'] == f'v1,{expected}'


@pytest.mark.parametrize(
  ('status', 'error'),
  [
    *((status, RefusedError) for status in (400, 409, 413, 422)),
    *((status, AwayError) for status in (401, 403, 404, 408, 429, 500, 503, 302, None)),
  ],
)
def test_what_an_answer_means(status, error):
  with Hook(lambda number: status) as hook, pytest.raises(error):
    Webhook(hook.url, b'secret').send(EVENT)


def test_no_server_and_one_that_is_too_slow_are_away(monkeypatch):
  with pytest.raises(AwayError, match='refused'):
    Webhook(f'http://127.0.0.1:{free_port()}/', b'secret').send(EVENT)
  monkeypatch.setattr(webhook, 'PATIENCE', 0.05)
  with Hook(lambda number: time.sleep(0.2)) as hook, pytest.raises(AwayError, match='timed out'):
    Webhook(hook.url, b'secret').send(EVENT)


@pytest.mark.parametrize(
  'url',
  [
    'plant.example/in',
    'ftp://plant.example',
    'http://',
    'https://a:b@plant.example/',
    'http://a b/',
    'http://plant.example:99999/',
    '',
  ],
)
def test_what_is_no_url(url):
  with pytest.raises(UserError, match='--webhook'):
    Webhook(url, b'secret')


@pytest.mark.parametrize('secret', ['', 'whsec_', 'whsec_no base64!'])
def test_what_is_no_secret(secret):
  with pytest.raises(UserError, match='the secret of the webhook'):
    webhook.key_of(secret)
