"""Exported files, in processes that have jax or ONNX Runtime alone, against the detector."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from patch_svdd_jax.data import lighting
from patch_svdd_jax.detection import calibration, export, exported_score, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import encoder
from patch_svdd_jax.tpu_planning import aot
from tests.support.runs import tiny_config

# Both scales have as many patches, so that one program searches both banks.
SIZE, STRIDES = (24, 28), (4, 6)
NORMAL, TEST = (
  np.random.default_rng(seed).integers(0, 160, (5, *SIZE, 3), np.uint8) for seed in range(2)
)

JAX_ALONE = """
import sys

class Blocker:
  def find_spec(self, name, *_):
    if name.partition('.')[0] in ('patch_svdd_jax', 'flax', 'orbax', 'optax', 'ml_collections'):
      raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import jax
import numpy as np

model, images, folder = sys.argv[1:]
exported = jax.export.deserialize(bytearray(open(model, 'rb').read()))
(shape,) = exported.in_avals
assert shape.dtype == np.uint8 and shape.shape[1:] == np.load(images).shape[1:], shape
score = jax.jit(exported.call)
for count in (1, 5):
  np.savez(f'{folder}/{count}.npz', **score(np.load(images)[:count]))
"""

# A process of its own: the TPU's library keeps the process that loads it.
TPU = """
import sys
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from patch_svdd_jax.tpu_planning import aot

exported = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
chip = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices[0]
(shape,) = exported.in_avals
images = jax.ShapeDtypeStruct(
  (2, *shape.shape[1:]), shape.dtype, sharding=SingleDeviceSharding(chip)
)
text = jax.jit(exported.call).lower(images).compile(aot.QUICK).as_text()
# No branch of another platform is left.
assert 'convolution' in text and ' conditional(' not in text
"""


# How patches are described, and scales weighed.
DESCRIBED = {
  'embedding': {},
  'all': {
    'features': ('embedding', 'hidden', 'thumbnail'),
    'whiten': True,
    'components': 12,
    'scale_weights': (0.5, 1.0),
  },
}


@pytest.fixture(scope='module', params=DESCRIBED)
def uncalibrated(request):
  config = tiny_config(image_size=SIZE)
  config.encoder.depth = 3
  config.data.light = 'standardised'
  config.score.update({'strides': STRIDES, 'batch_size': 2, 'neighbours': 2})
  config.score.update(DESCRIBED[request.param])
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: encoder.init_encoder(config))
  params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
  return Detector.fit(config, params, lighting.standardise(NORMAL), step=0)


@pytest.fixture(scope='module')
def scores(uncalibrated):
  return uncalibrated.score(lighting.standardise(TEST))


@pytest.fixture(scope='module')
def detector(uncalibrated, scores):
  # Between those of the test images: whatever the rounding, each has a place among them.
  ranked = np.sort(scores.images['product'])
  between = (ranked[1:] + ranked[:-1]) / 2
  found = calibration.calibrate(between, 1.01 * scores.maps['product'], {})
  return dataclasses.replace(uncalibrated, calibration=found)


@pytest.fixture(scope='module')
def limit(detector):
  return inspection.limits(detector, 0.4, 0.4)


@pytest.fixture(scope='module')
def exported(detector, limit):
  return export.to_stablehlo(detector, limit)


@pytest.fixture(scope='module')
def expected(detector, scores, limit):
  """What the package says of the test images."""
  maps, images = scores.maps['product'], scores.images['product']
  return {
    'map': maps,
    'score': images,
    'p_value': detector.calibration.p_values(images),
    'anomalous': images > limit.image.value,
    'anomalous_pixels': maps > limit.pixel.value,
  }


def assert_equal(found, expected, count, rtol):
  assert set(found) == set(expected)
  for name, values in expected.items():
    assert found[name].dtype == (bool if name.startswith('anomalous') else np.float32)
    np.testing.assert_allclose(found[name], values[:count], rtol=rtol, err_msg=name)


def test_jax_alone_gives_the_same(exported, expected, tmp_path):
  (tmp_path / 'model').write_bytes(exported)
  np.save(tmp_path / 'images.npy', TEST)
  paths = [str(tmp_path / name) for name in ('model', 'images.npy', '')]
  environment = {name: text for name, text in os.environ.items() if name != 'XLA_FLAGS'}
  subprocess.run(
    [sys.executable, '-I', '-c', JAX_ALONE, *paths],
    env=environment | {'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    check=True,
  )
  assert sorted(expected['p_value']) == [0.2, 0.4, 0.6, 0.8, 1.0]
  assert expected['anomalous'].sum() == 2
  assert 0.1 < expected['anomalous_pixels'].mean() < 0.5
  for count in (1, 5):
    with np.load(tmp_path / f'{count}.npz') as found:
      assert_equal(found, expected, count, rtol=1e-5)


def test_one_file_for_three_platforms(exported):
  program = jax.export.deserialize(bytearray(exported))
  assert program.platforms == ('cpu', 'cuda', 'tpu')
  assert not program.disabled_safety_checks


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler')
def test_the_program_compiles_for_a_tpu(exported, tmp_path):
  (tmp_path / 'model').write_bytes(exported)
  subprocess.run(
    [sys.executable, '-c', TPU, str(tmp_path / 'model')],
    env=os.environ | aot.ENVIRONMENT | {'JAX_PLATFORMS': 'cpu'},
    check=True,
  )


@pytest.mark.filterwarnings('ignore')  # what the converter and its libraries warn of is theirs
def test_onnx_gives_the_same(detector, limit, expected):
  pytest.importorskip('jax2onnx', reason='no jax2onnx: the extra onnx', exc_type=ImportError)
  runtime = pytest.importorskip('onnxruntime', exc_type=ImportError)
  runtime.set_default_logger_severity(3)
  contents = export.to_onnx(detector, limit)
  session = runtime.InferenceSession(contents, providers=['CPUExecutionProvider'])
  names = [output.name for output in session.get_outputs()]
  for count in (1, 5):
    found = dict(zip(names, session.run(None, {'images': TEST[:count]}), strict=True))
    assert_equal(found, expected, count, rtol=1e-4)


def test_scores_without_calibration(uncalibrated):
  score = exported_score.make_score(uncalibrated, None)
  assert set(jax.eval_shape(score, TEST)) == {'map', 'score'}


def test_what_does_not_fit_is_refused(detector, monkeypatch):
  encoder = 4 * sum(leaf.size for leaf in jax.tree.leaves((detector.params, detector.mean)))
  monkeypatch.setattr(export, 'LIMIT', encoder + 100)
  with pytest.raises(UserError, match=r'one file holds 0\.0 GB: .* config\.score\.coreset below 0'):
    export.to_stablehlo(detector, None)


def test_more_neighbours_than_rows(detector):
  config = detector.config.copy_and_resolve_references()
  config.score.neighbours = 1000
  greedy = dataclasses.replace(detector, origin=detector.origin._replace(config=config))
  with pytest.raises(UserError, match=r'config\.score\.neighbours=1000: the memory bank of K=16'):
    export.to_stablehlo(greedy, None)
