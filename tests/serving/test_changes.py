"""Good images and regions of interest that a served detector of a run takes."""

import asyncio
import contextlib
import io
import pathlib
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.data.images import resize_mask
from patch_svdd_jax.detection.additions import with_room
from patch_svdd_jax.detection.detector import Detector, versions
from patch_svdd_jax.serving import schema
from patch_svdd_jax.serving.additions import DetectorAdditions
from patch_svdd_jax.serving.changes import BusyError, Changes
from patch_svdd_jax.serving.region import (
  SHARES,
  CancelledError,
  DetectorRegions,
  Stages,
  unstretched,
)
from patch_svdd_jax.serving.scoring import DetectorScorer
from patch_svdd_jax.system import working_copy
from tests.serving.fake import FakeScorer, client_of, file_of, post
from tests.support import runs


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run on a few images of a folder."""
  images = [np.array(Image.open(io.BytesIO(part(100 + seed)))) for seed in range(12)]
  return runs.train_on_folder(tmp_path_factory.mktemp('trained'), images)


@pytest.fixture
def run(trained, tmp_path):
  return pathlib.Path(shutil.copytree(trained, tmp_path / 'run'))


@contextlib.asynccontextmanager
async def served(workdir):
  scorer = DetectorScorer(with_room(Detector.load(workdir)), 'parts', 0.2, 0.1)
  scorer.grow()
  changes = Changes(workdir)
  additions = DetectorAdditions(scorer, workdir, changes, 0.2)
  additions.compile()
  regions = DetectorRegions(scorer, workdir, changes)
  async with client_of(scorer, additions=additions, regions=regions) as client:
    yield client, scorer, changes


def part(seed):
  noise = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
  encoded = io.BytesIO()
  Image.fromarray(noise).save(encoded, 'png')
  return encoded.getvalue()


async def send(client, content, path='/additions'):
  return await client.post(path, content=content, headers={'Content-Type': 'image/png'})


def test_a_good_image_enters_the_detector_and_leaves_it(run):
  async def test():
    async with served(run) as (client, scorer, changes):
      before = (await send(client, part(9), '/score')).json()
      added = await send(client, part(9))
      assert added.status_code == 200, added.text
      answer = added.json()
      schema.Added.model_validate(answer)
      assert answer['version'] == 2
      assert answer['images'][1] == answer['images'][0] + 1
      assert answer['score'] == pytest.approx(before['score'], rel=1e-5)
      assert answer['threshold'][1] == scorer.detector.calibration.threshold(0.2).value
      again = (await send(client, part(9), '/score')).json()
      assert again['score'] < 1e-3 * before['score']
      assert Detector.load(run).origin == scorer.detector.origin
      assert len(list((run / 'additions').iterdir())) == 1

      twice = await send(client, part(9))
      assert (twice.status_code, twice.json()['error']) == (409, 'this image was added before')
      with changes.alone():
        busy = await send(client, part(10))
        assert busy.status_code == 409
        assert 'is being changed' in busy.json()['error']
      with working_copy.locked(run), pytest.raises(BusyError), changes.alone():
        pass

      gone = await client.delete('/additions/latest')
      assert gone.json() == {'version': 1, 'images': 1}
      assert (await send(client, part(9), '/score')).json()['score'] == before['score']
      assert (await client.delete('/additions/latest')).status_code == 409
      assert versions(run) == [1]
      assert not list((run / 'additions').iterdir())

  asyncio.run(test())


def test_a_region_is_learned_while_requests_are_answered(run):
  async def test():
    async with served(run) as (client, scorer, _):
      assert (await client.get('/region')).status_code == 204
      await send(client, part(9))
      region = np.zeros((32, 32), np.uint8)
      region[:, :24] = 255
      encoded = io.BytesIO()
      Image.fromarray(region).save(encoded, 'png')
      headers = {'Content-Type': 'image/png'}
      begun = await client.put('/region', content=encoded.getvalue(), headers=headers)
      assert begun.status_code == 202, begun.text
      deadline = time.monotonic() + 120
      state = begun.json()['state']
      while state == 'building':
        assert time.monotonic() < deadline
        assert (await send(client, part(3), '/score')).status_code == 200
        await asyncio.sleep(0.1)
        state = (await client.get('/health')).json()['region']['state']
      assert state == 'saved'
      shown = Image.open(io.BytesIO((await client.get('/region')).content))
      np.testing.assert_array_equal(np.array(shown) > 0, region > 0)
      loaded = Detector.load(run)
      np.testing.assert_array_equal(loaded.region, region > 0)
      # The image that was added is there still.
      assert len(loaded.origin.additions) == 1
      found = (await send(client, part(9), '/score')).json()
      assert found['score'] < 1e-3 * scorer.detector.calibration.scores.min()

  asyncio.run(test())


def test_nothing_is_changed_unless_the_server_allows_it():
  async def test():
    async with client_of(FakeScorer()) as client:
      assert (await post(client, file_of(50))).status_code == 200
      for answer, option in (
        (await send(client, part(1)), '--allow-additions'),
        (await client.delete('/additions/latest'), '--allow-additions'),
        (await client.get('/region'), '--allow-region'),
        (await client.put('/region', content=part(1)), '--allow-region'),
      ):
        assert answer.status_code == 403
        assert option in answer.json()['error']

  asyncio.run(test())


async def put(client, region, kind='image/png'):
  encoded = io.BytesIO()
  Image.fromarray(region).save(encoded, 'png')
  headers = {'Content-Type': kind}
  return await client.put('/region', content=encoded.getvalue(), headers=headers)


def test_regions_that_are_refused(run, tmp_path):
  whole = np.full((32, 32), 255, np.uint8)
  speck = np.zeros((32, 32), np.uint8)
  speck[3, 3] = 255

  async def test():
    async with served(run) as (client, scorer, changes):
      for sent, kind, status, words in (
        (whole, 'image/jpeg', 415, 'send the region as a body of image/png'),
        (np.full((400, 400), 255, np.uint8), 'image/png', 413, 'pixels'),
        (whole[:16], 'image/png', 422, '32 x 16 pixels, and images are 1 times as wide as high'),
        (0 * whole, 'image/png', 422, 'no patch of K='),
        (speck, 'image/png', 422, 'draw a larger one'),
      ):
        answer = await put(client, sent, kind)
        assert answer.status_code == status
        assert words in answer.json()['error']
      headers = {'Content-Type': 'image/png'}
      answer = await client.put('/region', content=b'no picture', headers=headers)
      assert answer.status_code == 422
      with changes.alone():
        assert (await put(client, whole)).status_code == 409
      scorer.detector.config.data.root = str(tmp_path / 'gone')
      answer = await put(client, whole)
      assert answer.status_code == 409
      error = answer.json()['error']
      assert 'the normal images cannot be read here' in error
      assert f'build-bank --workdir {run} --config.data.region=region.png' in error
      assert (await client.get('/health')).json()['region']['state'] == 'failed'
      assert versions(run) == [1]
      # What has failed keeps nobody out.
      with changes.alone():
        pass

  asyncio.run(test())


@pytest.mark.parametrize('aspect', [1, 4 / 3, 0.5, 2.7])
def test_a_region_is_shown_as_images_are_and_loses_nothing(aspect):
  region = np.random.default_rng(0).random((30, 40)) < 0.5
  shown = unstretched(region, aspect)
  assert shown.shape[1] / shown.shape[0] == pytest.approx(aspect, rel=0.03)
  np.testing.assert_array_equal(resize_mask(shown, region.shape), region)


@pytest.mark.parametrize('number', [1, 3])
def test_how_much_of_a_change_is_done(number):
  stages = Stages()
  seen = []
  for title in SHARES:
    for _ in range(number):  # some stages go over batches several times
      seen += [stages.done for _ in stages(title)(range(4))]
  assert seen == sorted(seen)
  assert stages.done == pytest.approx(1)
  assert stages.seconds_left == pytest.approx(0, abs=1e-6)


def test_a_server_that_ends_cancels_a_change():
  stages = Stages()
  batches = iter(stages('Embedding')(range(4)))
  next(batches)
  stages.cancel()
  with pytest.raises(CancelledError):
    next(batches)
