"""What keeps other web pages away from a server on the user's own machine."""

import ipaddress
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ('localhost', '127.0.0.1', '[::1]')


def is_loopback(host: str) -> bool:
  """Returns whether a name or address to listen on is reached from this machine only."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def trusted_hosts(host: str, allowed: Sequence[str] = ()) -> list[str]:
  """Returns the names of Host headers that are answered.

  On a loopback address only its names: a foreign page whose domain is made to point here (DNS
  rebinding) carries its own. On other addresses any, for nobody knows the names that lead there.

  Args:
    host: the address to listen on.
    allowed: further names that lead there; where some are given, they and those of the loopback
      are all that is answered, on whatever address.
  """
  return [*LOOPBACK_NAMES, host, *allowed] if allowed or is_loopback(host) else ['*']


class Guard:
  """Adds headers to every answer, and refuses requests that pages of other origins make.

  Browsers say where a request comes from: by Sec-Fetch-Site, or where they send none, as to another
  machine without encryption, by Origin. Other programs send neither, and may.
  """

  def __init__(self, app: ASGIApp, headers: Mapping[str, str]):
    self._app, self._headers = app, headers

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    async def guarded_send(message: Message) -> None:
      if message['type'] == 'http.response.start':
        MutableHeaders(scope=message).update(self._headers)
      await send(message)

    if scope['method'] not in ('GET', 'HEAD') and is_foreign(Headers(scope=scope)):
      refusal = JSONResponse({'error': 'requests from pages of other origins are refused'}, 403)
      await refusal(scope, receive, guarded_send)
      return
    await self._app(scope, receive, guarded_send)


def is_foreign(sent: Headers) -> bool:
  """Returns whether a page of another origin has made the request with these headers."""
  if site := sent.get('sec-fetch-site'):
    return site not in ('same-origin', 'none')
  origin = sent.get('origin')
  return origin is not None and origin.partition('://')[2] != sent.get('host')


def headers(scripts: str, styles: str) -> dict[str, str]:
  """Returns headers of every answer; nothing runs but what has these hashes, as 'sha256-...'."""
  policy = {
    'default-src': "'none'",
    'script-src': f"'{scripts}'",
    'style-src': f"'{styles}'",
    'img-src': 'blob: data:',
    'connect-src': "'self'",
    'base-uri': "'none'",
    'form-action': "'none'",
    'frame-ancestors': "'none'",
  }
  return {
    'Content-Security-Policy': '; '.join(f'{name} {value}' for name, value in policy.items()),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
  }
