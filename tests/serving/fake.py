"""A scorer without a detector, whose scores are known, and clients of its app."""

import concurrent.futures
import contextlib
import io
import threading
import time

import httpx
import ml_collections
import numpy as np
from PIL import Image

from patch_svdd_jax.data import arrays
from patch_svdd_jax.data.images import encode_png
from patch_svdd_jax.detection.prediction import Prediction
from patch_svdd_jax.detection.regions import Region
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.serving.app import make_app
from patch_svdd_jax.serving.changes import BusyError
from patch_svdd_jax.serving.schema import Bounds
from patch_svdd_jax.serving.scoring import Scored

SIZE = (8, 10)
BOUNDS = Bounds(request_bytes=200_000, pixels=100_000)


class FakeScorer:
  """An image's score is its brightness; above 100 it is an alarm."""

  def __init__(self, batch_size=8, seconds=0.0):
    self.batch_size, self.scale = batch_size, (0.0, 200.0)
    self.value_range = (0.0, 255.0)
    self._seconds = seconds
    self.batches, self.threads = [], set()
    self.go = threading.Event()
    self.go.set()

  def grow(self):
    return False

  def prepare(self, image, name):
    config = ml_collections.ConfigDict({'image_size': SIZE, 'resize': 'box'})
    return arrays.resized([image], config, [name])

  def score(self, images):
    assert self.go.wait(30)
    time.sleep(self._seconds)
    self.batches.append(len(images))
    self.threads.add(threading.get_ident())
    return [self._scored(split) for split in images]

  def _scored(self, split):
    height, width = map(int, split.sizes[0])
    level = float(split.images.mean())
    if level == 13:
      raise ZeroDivisionError('a secret of /root')
    region = Region((0, 0, width // 2, height), width // 2 * height, level)
    prediction = Prediction(
      name=split.names[0],
      score=level,
      p_value=0.25,
      alarm=level > 100,
      size=(height, width),
      regions=(region,) if level > 100 else (),
      warnings=(f'brightness {level:g} is <b>strange</b>',) if level > 200 else (),
    )
    return Scored(prediction, np.linspace(0, 200, SIZE[0] * SIZE[1]).reshape(SIZE))

  def about(self):
    limit = {'value': 100.0, 'rate_asked': 0.01, 'rate': 0.02, 'ensured': False}
    return {
      'model': {'name': 'parts', 'step': 7, 'images': 'abc'},
      'threshold': limit,
      'pixel_threshold': limit,
      'calibration_images': 49,
      'warnings': [],
      'shift': [],
      'scored': sum(self.batches),
    }


class FakeRegions:
  """A region that is taken as it is; what learns it anew waits to be let go, or told to fail."""

  def __init__(self, region=None):
    self.region, self.asked = region, []
    self.state, self.share, self.error = 'none', 0.0, ''
    self.unreadable = None

  def present(self):
    return None if self.region is None else encode_png(self.region)

  def check(self, region):
    if not region.any():
      raise UserError('no patch lies in the region: draw a larger one')

  def begin(self, region):
    if self.state == 'building':
      raise BusyError('the detector is being changed already')
    read = concurrent.futures.Future()
    if self.unreadable:
      read.set_exception(UserError(self.unreadable))
    else:
      read.set_result(None)
      self.state = 'building'
      self.asked.append(region)
    return read

  def finish(self):
    self.region, self.state, self.share = self.asked[-1], 'saved', 1.0

  def about(self):
    left = 30.0 if self.state == 'building' else None
    return {'state': self.state, 'share': self.share, 'seconds_left': left, 'error': self.error}

  def close(self):
    self.state = 'none'


def file_of(level, size=(12, 9), kind='PNG', **options):
  """An image file of one grey level, of (width, height)."""
  encoded = io.BytesIO()
  Image.new('RGB', size, (level,) * 3).save(encoded, kind, **options)
  return encoded.getvalue()


@contextlib.asynccontextmanager
async def client_of(scorer, places=64, bounds=BOUNDS, **options):
  """A client of the app in this process, without a socket."""
  app = make_app(scorer, bounds, places=places, **options)
  transport = httpx.ASGITransport(app, raise_app_exceptions=False)
  async with (
    app.router.lifespan_context(app),
    httpx.AsyncClient(transport=transport, base_url='http://127.0.0.1') as client,
  ):
    yield client


async def post(client, content, name='part.png', query=''):
  return await client.post(f'/score{query}', files={'image': (name, content)})
