"""The endpoints with a scorer whose scores are known: answers, refusals, bounds."""

import argparse
import asyncio
import base64
import hashlib
import io
import logging
import re

import httpx
import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.commands import serve
from patch_svdd_jax.serving import schema, security
from patch_svdd_jax.serving.schema import Bounds
from tests.data.image_files import chunk, png, tiff
from tests.serving import malformed
from tests.serving.fake import BOUNDS, SIZE, FakeScorer, client_of, file_of, post


def with_client(test, scorer=None, **options):
  """Runs a coroutine of (client, scorer)."""
  scorer = scorer or FakeScorer()

  async def run():
    async with client_of(scorer, **options) as client:
      return await test(client, scorer)

  return asyncio.run(run())


def assert_refused(answer, *statuses, words=''):
  assert answer.status_code in (statuses or range(400, 500)), answer.text
  assert [*answer.json()] == ['error']
  reason = answer.json()['error']
  assert reason.strip()
  assert words in reason
  assert reason.isprintable()  # one line
  assert not any(leak in reason for leak in ('Traceback', '0x', '.py', '/home', 'BytesIO'))


def test_a_form_and_a_raw_body_are_answered_alike():
  async def test(client, _):
    content = file_of(140, (12, 9))
    form = await post(client, content, 'C:\\parts\\bolt.png')
    raw = await client.post('/score', content=content, headers={'Content-Type': 'image/png'})
    assert (form.status_code, raw.status_code) == (200, 200)
    schema.Answer.model_validate(form.json())
    expected = {'verdict': 'alarm', 'score': 140.0, 'p_value': 0.25, 'size': [12, 9]}
    assert form.json().items() >= (expected | {'image': 'bolt.png', 'warnings': []}).items()
    assert raw.json() == form.json() | {'image': 'image'}

  with_client(test)


@pytest.mark.parametrize(
  ('kind', 'options', 'size'),
  [
    ('JPEG', {}, [12, 9]),
    ('TIFF', {}, [12, 9]),
    ('BMP', {}, [12, 9]),
    ('WEBP', {}, [12, 9]),
    ('GIF', {}, [12, 9]),
    ('JPEG2000', {}, [12, 9]),
    ('JPEG', {'turned': 6}, [9, 12]),
  ],
)
def test_kinds_of_files_upright(kind, options, size):
  exif = Image.Exif()
  exif[0x0112] = options.get('turned', 1)

  async def test(client, _):
    answer = await post(
      client, file_of(140, kind=kind, exif=exif) if kind == 'JPEG' else file_of(140, kind=kind)
    )
    assert answer.json()['size'] == size

  with_client(test)


def test_deep_files_are_read_by_the_range_of_the_detector():
  values = np.full((9, 12), 140 * 16, np.uint16)

  async def test(client, scorer):
    scorer.value_range = (0.0, 4095.0)
    for content, kind in ((png(values), 'image/png'), (tiff(values), 'image/tiff')):
      answer = await client.post('/score', content=content, headers={'Content-Type': kind})
      assert (answer.status_code, answer.json()['score']) == (200, 140)
    assert_refused(await post(client, png(values * 16)), 422, words='range from 0 to 4095')
    nothing = tiff(np.full((9, 12), np.nan, np.float32))
    assert_refused(await post(client, nothing), 422, words='no numbers')

  with_client(test)


def test_metadata_spoils_no_upload():
  async def test(client, _):
    content = png(np.full((9, 12), 140, np.uint8), metadata=chunk(b'eXIf', b'MM\0*'))
    assert (await post(client, content)).json()['score'] == 140

  with_client(test)


def test_the_map_and_the_photo_on_demand():
  async def test(client, scorer):
    found = (await post(client, file_of(140, (3000, 30)), query='?map=true&photo=true')).json()
    schema.Answer.model_validate(found)
    layer = Image.open(io.BytesIO(base64.b64decode(found['map']['png'])))
    assert (layer.mode, layer.size) == ('RGBA', SIZE[::-1])
    alpha = np.asarray(layer)[..., 3].ravel()
    assert alpha[0] == 0  # what is normal stays visible
    assert (np.diff(alpha.astype(int)) >= 0).all()
    assert found['map']['scale'] == list(scorer.scale)
    photo = Image.open(io.BytesIO(base64.b64decode(found['photo'])))
    assert (photo.format, photo.size) == ('JPEG', (1024, 10))
    assert not {'map', 'photo'} & (await post(client, file_of(140))).json().keys()
    assert_refused(await post(client, file_of(140), query='?map=perhaps'), 422, words='map: ')

  with_client(test, bounds=Bounds(request_bytes=10**6, pixels=10**6))


def test_requests_that_wait_are_scored_together_each_with_its_own_result():
  async def test(client, scorer):
    scorer.go.clear()
    levels = [*range(20, 60)]
    asked = [asyncio.create_task(post(client, file_of(level))) for level in levels]
    while (await client.get('/health')).json()['queue']['length'] < len(levels):
      await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    scorer.go.set()
    answers = await asyncio.gather(*asked)
    assert [answer.json()['score'] for answer in answers] == levels
    assert max(scorer.batches) == scorer.batch_size
    assert len(scorer.batches) < 12
    assert len(scorer.threads) == 1
    assert (await client.get('/health')).json()['queue']['length'] == 0

  with_client(test)


def test_beyond_the_bound_requests_are_told_to_come_again():
  async def test(client, scorer):
    scorer.go.clear()
    asked = [asyncio.create_task(post(client, file_of(50))) for _ in range(7)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)
    refused = [task.result() for task in asked if task.done()]
    assert len(refused) == 4
    for answer in refused:
      assert_refused(answer, 503)
      assert int(answer.headers['Retry-After']) >= 1
    assert (await client.get('/health')).status_code == 200
    scorer.go.set()
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 4
    assert (await post(client, file_of(50))).status_code == 200

  with_client(test, places=3)


def form(content, boundary='x'):
  return {
    'content': content,
    'headers': {'Content-Type': f'multipart/form-data; boundary={boundary}'},
  }


@pytest.mark.parametrize(
  ('request_', 'statuses', 'words'),
  [
    ({'files': {'image': ('empty.png', b'')}}, (422,), 'the file is empty'),
    ({'files': {'photo': ('a.png', b'a')}}, (422,), "in the field 'image'"),
    ({'data': {'image': 'text'}, 'files': {'other': b''}}, (422,), "in the field 'image'"),
    ({'data': {'image': 'no file'}}, (415,), 'multipart/form-data'),
    ({'files': [('image', ('a.png', b'a')), ('image', ('b.png', b'b'))]}, (422,), 'there are 2'),
    ({'files': [('image', (f'{i}.png', b'a')) for i in range(9)]}, (400,), 'Too many files'),
    ({'content': b''}, (415,), ''),
    ({'content': b'x', 'headers': {'Content-Type': 'application/json'}}, (415,), ''),
    ({'content': b'', 'headers': {'Content-Type': 'image/png'}}, (422,), 'empty'),
    ({'content': b'x', 'headers': {'Content-Type': 'multipart/form-data'}}, (400,), ''),
    (form(b'x'), (400, 422), ''),
    (form(b'--x\r\n\r\n'), (400,), ''),
    (form(b'x', 'x' * 300), (400,), ''),
    ({'files': {'image': ('big.png', bytes(BOUNDS.request_bytes))}}, (413,), 'larger than'),
    ({'files': {'image': ('wide.png', file_of(9, (1001, 100)))}}, (413,), '1001 x 100 pixels'),
  ],
)  # fmt: skip
def test_what_is_refused(request_, statuses, words):
  async def test(client, _):
    assert_refused(await client.post('/score', **request_), *statuses, words=words)
    assert (await post(client, file_of(50))).json()['score'] == 50

  with_client(test)


def test_an_upload_that_lies_about_its_length_is_counted():
  async def endless(sent):
    for _ in range(10**6):
      sent.append(1)
      yield bytes(10_000)

  async def test(client, _):
    sent = []
    answer = await client.post(
      '/score', content=endless(sent), headers={'Content-Type': 'image/png'}
    )
    assert_refused(answer, 413, words='larger than')
    assert len(sent) <= BOUNDS.request_bytes / 10_000 + 2

  with_client(test)


def test_an_upload_that_does_not_end_is_ended(monkeypatch):
  monkeypatch.setattr('patch_svdd_jax.serving.uploads.SECONDS', 0.05)

  async def slow():
    yield b'\x89PNG'
    await asyncio.sleep(20)

  async def test(client, _):
    answer = await client.post('/score', content=slow(), headers={'Content-Type': 'image/png'})
    assert_refused(answer, 408)
    assert answer.headers['connection'] == 'close'

  with_client(test)


def refuse_all(count, seed):
  """Sends them all, eight at a time, with good ones between."""

  async def test(client, _):
    slots = asyncio.Semaphore(8)

    async def send(what, content):
      async with slots:
        answer = await post(client, content, f'{what}.png')
        assert answer.status_code < 500, (what, answer.text)
        assert_refused(answer)
        return what

    asked = [send(*upload) for upload in malformed.uploads(seed, count)]
    seen = await asyncio.gather(*asked)
    assert len({*seen}) >= 12
    assert (await post(client, file_of(50))).json()['score'] == 50
    assert (await client.get('/health')).json()['queue']['length'] == 0

  with_client(test)


def test_malformed_uploads_are_refused_with_a_reason():
  refuse_all(100, seed=0)


@pytest.mark.slow
def test_a_thousand_malformed_uploads_are_refused_with_a_reason():
  refuse_all(1000, seed=1)


# Starlette leaves a file that was cut off to the garbage collector.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.filterwarnings('ignore:Unclosed file:ResourceWarning')
def test_nonsense_forms_are_refused():
  async def test(client, _):
    rng = np.random.default_rng(0)
    whole = httpx.Request('POST', 'http://x', files={'image': ('a.png', file_of(50))})
    body, kind = whole.read(), whole.headers['content-type']
    answered = 0
    for _ in range(60):
      garbled = bytearray(body[: int(rng.integers(1, len(body)))])
      for place in rng.integers(0, len(garbled), 8):
        garbled[place] = int(rng.integers(256))
      answer = await client.post('/score', content=bytes(garbled), headers={'Content-Type': kind})
      assert_refused(answer)
      answered += 1
    assert answered == 60

  with_client(test)


def test_an_error_of_ours_says_nothing_of_the_inside_and_ends_nothing(caplog):
  async def test(client, _):
    with caplog.at_level(logging.CRITICAL, 'patch_svdd_jax'):
      answer = await post(client, file_of(13))
    assert answer.status_code == 500
    assert answer.json() == {'error': 'internal error; the server has logged it'}
    assert (await post(client, file_of(50))).status_code == 200

  with_client(test)


def test_unknown_paths_and_methods():
  async def test(client, _):
    assert_refused(await client.get('/nosuch'), 404)
    assert_refused(await client.get('/score'), 405)
    assert_refused(await client.get('/docs'), 404)  # its page loads scripts from elsewhere

  with_client(test)


def test_health_and_the_schema():
  async def test(client, _):
    await post(client, file_of(50))
    health = (await client.get('/health')).json()
    schema.Health.model_validate(health)
    assert health['ready'] is True
    assert health['scored'] == 1
    assert health['bounds'] == BOUNDS.model_dump()
    described = (await client.get('/openapi.json')).json()
    assert described['paths'].keys() == {
      *('/score', '/health', '/region', '/additions', '/additions/latest')
    }
    score = described['paths']['/score']['post']
    assert {'multipart/form-data', 'image/png'} <= score['requestBody']['content'].keys()
    assert {'200', '413', '422', '503'} <= score['responses'].keys()

  with_client(test)


def test_a_proxy_is_answered_by_the_names_that_it_is_allowed():
  async def test(client, _):
    for host, status in (('parts.example', 200), ('localhost', 200), ('evil.example', 400)):
      assert (await client.get('/health', headers={'Host': host})).status_code == status

  with_client(test, host='0.0.0.0', allowed_hosts=['parts.example'])
  with_client(test, allowed_hosts=['parts.example'])


@pytest.mark.parametrize(
  ('name', 'fits'),
  [
    ('parts.example', True),
    ('10.0.0.7', True),
    ('[fe80::1]', True),
    ('parts.example:443', False),
    ('https://parts.example', False),
    ('*', False),
  ],
)
def test_names_of_hosts_have_no_port(name, fits):
  if fits:
    assert serve.host_name(name) == name
  else:
    with pytest.raises(argparse.ArgumentTypeError, match='no name or address without a port'):
      serve.host_name(name)


def test_other_pages_are_kept_away():
  async def test(client, _):
    for host in ('evil.example', 'evil.example:8000', '127.0.0.1.evil.example'):
      assert (await client.get('/health', headers={'Host': host})).status_code == 400
    for host in ('localhost', 'localhost:8000', '[::1]:8000'):
      assert (await client.get('/health', headers={'Host': host})).status_code == 200
    for origin, status in (('cross-site', 403), ('same-site', 403), ('same-origin', 200)):
      files = {'image': file_of(50)}
      answer = await client.post('/score', files=files, headers={'Sec-Fetch-Site': origin})
      assert answer.status_code == status
      assert answer.headers['x-content-type-options'] == 'nosniff'
    # Browsers send no Sec-Fetch-Site to another machine without encryption.
    for origin, status in (
      ('http://evil.example', 403), ('null', 403), ('http://127.0.0.1', 200), (None, 200)
    ):  # fmt: skip
      headers = {'Origin': origin} if origin else {}
      files = {'image': file_of(50)}
      assert (await client.post('/score', files=files, headers=headers)).status_code == status

  with_client(test)


def test_on_other_addresses_any_name_may_lead_there():
  async def test(client, _):
    assert (await client.get('/health', headers={'Host': 'camera.local'})).status_code == 200

  with_client(test, host='0.0.0.0')


def test_what_is_this_machine_only():
  for host in ('127.0.0.1', '127.1.2.3', '::1', 'localhost'):
    assert security.is_loopback(host)
  for host in ('0.0.0.0', '::', '192.168.0.7', 'camera.local'):
    assert not security.is_loopback(host)


def test_the_page_runs_nothing_but_its_own():
  async def test(client, _):
    answer = await client.get('/')
    assert answer.headers['content-type'].startswith('text/html')
    policy = answer.headers['content-security-policy']
    assert "default-src 'none'" in policy
    assert 'unsafe' not in policy
    # The name of SVG, which nobody looks up.
    assert {*re.findall(r'https?:[^\'" ]+', answer.text)} == {'http://www.w3.org/2000/svg'}
    for word in ('src="', '@import', 'STYLE', 'SCRIPT', 'COLOUR_SCALE'):
      assert word not in answer.text
    inside = re.search('<script>(.*)</script>', answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy

  with_client(test)
