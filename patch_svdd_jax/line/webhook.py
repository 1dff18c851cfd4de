"""Results posted to a URL, signed as https://www.standardwebhooks.com has it.

The signature is HMAC-SHA256 of the event's id, the time and the body, joined by dots: what was
recorded cannot be sent again at another time, nor changed.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from patch_svdd_jax import __version__
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line.journal import Event
from patch_svdd_jax.line.outbox import AwayError, RefusedError

PREFIX = 'whsec_'
# Seconds for which an answer is waited for.
PATIENCE = 10.0
# What a receiver says of this event alone. Others may pass: a server that is being set up does not
# know the address or the secret yet.
REFUSALS = frozenset((400, 406, 409, 411, 413, 414, 415, 422, 431))


def key_of(secret: str) -> bytes:
  """Returns the key of a secret: its text, or what is encoded in base64 after 'whsec_'.

  Raises:
    UserError: it is empty, or no base64.
  """
  try:
    encoded = secret.startswith(PREFIX)
    key = base64.b64decode(secret[len(PREFIX) :], validate=True) if encoded else secret.encode()
  except binascii.Error as error:
    raise UserError(f'the secret of the webhook: what follows {PREFIX} is no base64') from error
  if not key:
    raise UserError('the secret of the webhook is empty')
  return key


def signature(key: bytes, event_id: str, seconds: int, body: bytes) -> str:
  """Returns 'v1,' and the base64 of HMAC-SHA256(key, id.seconds.body)."""
  signed = b'.'.join((event_id.encode(), str(seconds).encode(), body))
  return 'v1,' + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def check(url: str) -> str:
  """Returns the host of a URL that can be posted to.

  Raises:
    UserError: it is none, or has a password in it, which other users of the machine see.
  """
  try:
    parts = urllib.parse.urlsplit(url)
    host, _ = parts.hostname, parts.port
  except ValueError:
    host = None
  if not host or parts.scheme not in ('http', 'https') or not url.isascii() or ' ' in url:
    raise UserError('--webhook: give a URL that begins with http:// or https://')
  if parts.username is not None:
    raise UserError('--webhook: give no user and password in the URL')
  return host


class _NoRedirects(urllib.request.HTTPRedirectHandler):
  def redirect_request(self, *_: Any) -> None:
    """Follows nothing: what is posted is for the address that was given."""


class Webhook:
  """Posts each event to a URL."""

  name = 'webhook'

  def __init__(self, url: str, key: bytes, clock: Callable[[], float] = time.time):
    check(url)
    self._url, self._key, self._clock = url, key, clock
    self._opener = urllib.request.build_opener(_NoRedirects)

  def send(self, event: Event) -> None:
    """Posts it; see `Sink`."""
    seconds = int(self._clock())
    headers = {
      'Content-Type': 'application/json',
      'User-Agent': f'patch-svdd/{__version__}',
      'webhook-id': event.id,
      'webhook-timestamp': str(seconds),
      'webhook-signature': signature(self._key, event.id, seconds, event.body),
    }
    request = urllib.request.Request(self._url, event.body, headers, method='POST')
    try:
      with self._opener.open(request, timeout=PATIENCE) as answer:
        answer.read(2**16)
    except urllib.error.HTTPError as error:
      with error:
        said = f'HTTP {error.code}'
      if error.code in REFUSALS:
        raise RefusedError(said) from error
      raise AwayError(said) from error
    except urllib.error.URLError as error:
      raise AwayError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
      raise AwayError(str(error) or type(error).__name__) from error

  def close(self) -> None:
    """Does nothing: no connection stays open."""
