"""A run and its detector from before the package had wings (0.1.0, deaaecf) load and resume.

`old_run/` was made there by `train --config configs/laptop.py:brick` with images of 48 x 48, an
encoder of two layers, four steps, and then four more; on one device, without the tests' settings of
the compiler. So figures are compared up to the order of sums.
"""

import json
import pathlib
import tarfile

import numpy as np
import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.detection.detector import Detector

OLD = pathlib.Path(__file__).parent / 'old_run'
IMAGE = np.random.default_rng(7).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)[:1]
CONFIG = """
import pathlib
from patch_svdd_jax import configuration

def get_config():
  config = configuration.load(pathlib.Path({workdir!r}))
  config.train.steps = 8
  config.data.prepared = {prepared!r}
  return config
"""


@pytest.fixture
def workdir(tmp_path):
  with tarfile.open(OLD / 'run.tar.xz') as archive:
    archive.extractall(tmp_path, filter='data')
  return tmp_path / 'begun'


def test_an_old_detector_scores_as_it_did(workdir):
  scores = Detector.load(workdir).score(IMAGE)
  with np.load(OLD / 'maps.npz') as expected:
    assert set(scores.maps) == set(expected)
    for name, values in scores.maps.items():
      np.testing.assert_allclose(values, expected[name], rtol=1e-4, err_msg=name)


def test_an_old_run_resumes_as_it_would_have(workdir, tmp_path):
  config = tmp_path / 'config.py'
  config.write_text(CONFIG.format(workdir=str(workdir), prepared=str(tmp_path / 'prepared')))
  assert main(['train', '--config', str(config), '--workdir', str(workdir)]) == 0
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  resumed = [line for line in lines if line['step'] > 4]
  expected = [json.loads(line) for line in (OLD / 'resumed.jsonl').read_text().splitlines()]
  assert [line['step'] for line in resumed] == [line['step'] for line in expected] == [6, 8, 8]
  for found, line in zip(resumed, expected, strict=True):
    assert {key: found[key] for key in line} == pytest.approx(line, rel=1e-3)
