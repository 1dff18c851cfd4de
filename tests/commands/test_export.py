import sys

import jax
import numpy as np
import pytest

from patch_svdd_jax import commands
from patch_svdd_jax.detection.detector import Detector, Origin
from patch_svdd_jax.models import encoder
from patch_svdd_jax.search import memory_bank
from patch_svdd_jax.system.sharding import replicate
from tests.support.runs import tiny_config

SIZE = (8, 12)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run with a detector that was never trained, fitted or calibrated."""
  config = tiny_config(image_size=SIZE, scales=(8,))
  config.score.strides = (4,)
  bank = memory_bank.from_rows(np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32))
  params, mean = replicate((encoder.init_encoder(config), np.zeros((*SIZE, 3), np.float32)))
  folder = tmp_path_factory.mktemp('run')
  Detector(Origin(config, 0, 'none'), params, mean, {8: bank}).save(folder)
  return folder


def export(workdir, output):
  return commands.main(['export', '--model', str(workdir), '--output', str(output)])


def test_a_file_that_jax_reads(workdir, tmp_path, capsys):
  output = tmp_path / 'new/parts.stablehlo'
  assert export(workdir, output) == 0
  said = capsys.readouterr()
  assert 'warning: the detector is not calibrated' in said.err
  assert f'written: {output}, ' in said.out
  exported = jax.export.deserialize(bytearray(output.read_bytes()))
  assert [each.shape[1:] for each in exported.in_avals] == [(*SIZE, 3)]
  assert [path.name for path in output.parent.iterdir()] == ['parts.stablehlo']


def test_onnx_needs_its_converter(workdir, tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  assert export(workdir, tmp_path / 'parts.onnx') == 2
  assert "jax2onnx is missing: pip install 'patch_svdd_jax[onnx]'" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_what_is_missing_is_said(workdir, tmp_path, capsys):
  assert export(tmp_path, tmp_path / 'parts.stablehlo') == 2
  assert 'no fitted detector' in capsys.readouterr().err
  folder = tmp_path / 'folder.onnx'
  folder.mkdir()
  assert export(workdir, folder) == 2
  assert f'cannot write {folder}: it is a folder' in capsys.readouterr().err
