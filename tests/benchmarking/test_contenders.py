"""All ways from a file to a score give the detector's own, at times that add up."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.benchmarking import contenders, peers
from patch_svdd_jax.data import arrays
from patch_svdd_jax.data.file_search import Source
from patch_svdd_jax.detection import calibration_scores, export, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.models import encoder
from tests.support.runs import tiny_config

SIZE, FILE_SIZE = (40, 48), (80, 96)
COUNT = 5

# What SWIG's modules, faiss among them, say when they are imported.
pytestmark = pytest.mark.filterwarnings('ignore:builtin type .* has no __module__')


def noise(seed, size):
  return np.random.default_rng(seed).normal(128, 30, (*size, 3)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def detector():
  config = tiny_config(mean='channel')
  config.data.light = 'standardised'
  config.score.update(strides=(8, 4), batch_size=1, neighbours=2)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: encoder.init_encoder(config))
  params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
  normal = arrays.dataset([noise(seed, SIZE) for seed in range(4)], config.data).train
  fitted = Detector.fit(config, params, normal.images, step=0)
  return calibration_scores.calibrate(fitted, normal, normal.take(np.arange(0)))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('files')
  sources = []
  for number in range(COUNT):
    path = folder / f'{number}.png'
    Image.fromarray(noise(100 + number, FILE_SIZE)).save(path)
    sources.append(Source(path.name, path))
  return sources


@pytest.fixture(scope='module')
def expected(detector, files):
  """The scores of the files, by the Python interface's way."""
  given = [np.asarray(Image.open(source.path)) for source in files]
  config = detector.config.data
  split = data.light(arrays.resized(given, config, [source.name for source in files]), config)
  return inspection.inspect(detector, split, contenders.limits(detector)).scores


def stablehlo(detector, folder):
  path = folder / 'detector.stablehlo'
  path.write_bytes(export.to_stablehlo(detector, contenders.limits(detector)))
  return contenders.make_stablehlo(path, detector.config)


def onnx(detector, folder):
  pytest.importorskip('jax2onnx', exc_type=ImportError)
  pytest.importorskip('onnxruntime', exc_type=ImportError)
  path = folder / 'detector.onnx'
  path.write_bytes(export.to_onnx(detector, contenders.limits(detector)))
  return contenders.make_onnx(path, detector.config)


def searching_by(name):
  def make(detector, _):
    pytest.importorskip(peers.PEERS[name].module, exc_type=ImportError)
    return contenders.of_detector(contenders.with_search(detector, name))

  return make


WAYS = {
  'ours': lambda detector, _: contenders.of_detector(detector),
  '.stablehlo': stablehlo,
  '.onnx': onnx,
  **{name: searching_by(name) for name in peers.PEERS},
}


@pytest.mark.filterwarnings('ignore')  # what jax2onnx and its libraries warn of is theirs
@pytest.mark.parametrize('way', WAYS)
def test_scores_are_the_detectors_and_stages_are_within_the_whole(
  detector, files, expected, tmp_path, way
):
  contender = WAYS[way](detector, tmp_path)
  stages = ['program'] if way.startswith('.') else ['embed', 'search', 'map', 'verdict']
  streamed = contenders.stream(contender, files)
  np.testing.assert_allclose(streamed.scores, expected, rtol=1e-4)
  singles = [contenders.one(contender, source) for source in files]
  np.testing.assert_allclose([each.score for each in singles], expected, rtol=1e-4)
  for each in singles:
    assert list(each.stages) == ['decode', *stages]
    assert all(seconds > 0 for seconds in each.stages.values())
    assert sum(each.stages.values()) <= each.seconds
  assert list(streamed.stages) == ['decode', *stages]
  scoring = sum(streamed.stages.values()) - streamed.stages['decode']
  assert COUNT * scoring <= streamed.seconds


def test_other_searches_find_what_lies_near_a_distant_mean():
  rng = np.random.default_rng(0)
  rows, queries = (0.95 + 4e-4 * rng.standard_normal((n, 16)) for n in (300, 20))
  found = contenders.centred(peers.prepare_scikit_learn, rows.astype(np.float32), 1)(
    queries.astype(np.float32)
  )
  differences = queries.astype(np.float32)[:, None].astype(np.float64) - rows.astype(np.float32)
  expected = np.sqrt((differences**2).sum(-1)).min(axis=1)
  np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_another_size_changes_what_files_are_resized_to(detector, files):
  contender = contenders.of_detector(contenders.resize(detector, (48, 64)))
  assert tuple(contender.data.image_size) == (48, 64)
  assert tuple(detector.config.data.image_size) == SIZE
  assert contenders.one(contender, files[0]).score > 0


def test_a_detector_is_timed_as_it_was_saved(detector, files, expected, tmp_path):
  detector.save(tmp_path)
  contender = contenders.make_ours(tmp_path, SIZE)
  assert contenders.one(contender, files[2]).score == pytest.approx(expected[2], rel=1e-5)
  assert contender.batch == jax.local_device_count()
  with pytest.raises(contenders.UserError, match='not calibrated'):
    contenders.of_detector(dataclasses.replace(detector, calibration=None))
