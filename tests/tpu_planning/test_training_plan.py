"""The train step and the embedding pass, compiled for TPUs that are not here."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import flops
from patch_svdd_jax.tpu_planning import training_plan

TOPOLOGIES = {'v4:2x2x1': 275e12, 'v5e:2x2': 197e12, 'v5p:2x2x1': 459e12, 'v6e:2x2': 918e12}
PAIRS, IMAGES = 8, 5

# A process of its own: the TPU's library keeps the process that loads it.
COMPILE = r"""
import dataclasses, json, re, sys
import jax
jax.config.update('jax_platforms', 'cpu')
from patch_svdd_jax import configuration, embedding_plan, tpu_plan, training_plan
config = configuration.from_json(sys.argv[1], 'test')
texts = []
compile_fitting = tpu_plan.compile_fitting
def keep(lowered, options):
  compiled = compile_fitting(lowered, options)
  texts.append(compiled.as_text())
  return compiled
tpu_plan.compile_fitting = keep
found = {}
for topology in sys.argv[2:]:
  programs = (
    training_plan.compile_for(topology, config, 8, 5),
    embedding_plan.compile_for(topology, config, 2),
  )
  for name, program, text in zip(('train', 'embed'), programs, texts[-2:]):
    facts = dataclasses.asdict(program)
    facts['memory'] = program.memory._asdict()
    facts['collectives'] = {k: v._asdict() for k, v in program.collectives.items()}
    # Products are written as convolutions that have no place in their dimensions.
    facts['convolutions'] = len(re.findall(r' convolution\(.*dim_labels=[a-z]*[0-9]', text))
    facts['branches'] = text.count(' conditional(')
    found[f'{topology} {name}'] = facts
print(json.dumps(found))
"""


def small_config():
  """An encoder of two layers; its gradients are three more convolutions."""
  config = default.get_config()
  config.data.image_size = (64, 64)
  config.encoder.receptive_field = 16
  config.encoder.scales = (16,)
  config.encoder.depth = 2
  config.encoder.channels = (16,)
  config.encoder.embed_dim = 8
  config.train.batch_size = 8
  config.train.compute = 'bfloat16'
  config.score.strides = (4,)
  return config


@pytest.fixture(scope='module')
def compiled():
  done = subprocess.run(
    [sys.executable, '-c', COMPILE, json.dumps(small_config().to_dict()), *TOPOLOGIES],
    env={name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


needs_libtpu = pytest.mark.skipif(
  not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler'
)


@pytest.mark.tpu
@needs_libtpu
@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_the_train_step_compiles(compiled, topology):
  found = compiled[f'{topology} train']
  config = small_config()
  config.train.batch_size = 4 * PAIRS
  expected = flops.step_flops(config)
  assert (found['chips'], found['flops']) == (4, expected)
  assert found['peak_seconds'] == pytest.approx(expected / (4 * TOPOLOGIES[topology]))
  assert found['utilisation'] <= 1
  # Images and the mean on each chip, and parameters with the optimiser's two moments.
  inputs = IMAGES * 64 * 64 * 3 + 64 * 64 * 3 * 4
  assert inputs < found['memory']['arguments'] < 2 * inputs + 2**20
  # Gradients: of the encoder, of the classifier, and a few numbers.
  values = 3 * 3 * 3 * 16 + 16 + 7 * 7 * 16 * 8 + 8
  values += (8 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 8
  assert found['collectives'].keys() == {'all-reduce'}
  # The weight of the classifier's last layer has none.
  values -= 128 * 8
  assert values * 4 <= found['collectives']['all-reduce']['bytes'] <= 1.05 * values * 4
  # Of two layers forward and by the parameters, but none by the pixels; and no branch of another
  # platform, only the one for steps past the last.
  assert found['convolutions'] == 5
  assert found['branches'] == 1


@pytest.mark.tpu
@needs_libtpu
@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_the_embedding_pass_compiles(compiled, topology):
  found = compiled[f'{topology} embed']
  # 13 x 13 patches, and 31 x 31 outputs of the first layer: two images on each of four chips.
  macs = 31**2 * 9 * 3 * 16 + 13**2 * 7**2 * 16 * 8
  assert found['flops'] == 8 * 2 * macs
  assert found['peak_seconds'] == pytest.approx(6 * found['flops'] / (4 * TOPOLOGIES[topology]))
  assert found['convolutions'] == 2
  assert found['branches'] == 0
  assert found['collectives'] == {}
  assert found['memory']['output'] >= 2 * 13 * 13 * 8 * 4


def test_flops_of_an_image():
  config = default.get_config()
  # 1 x 1 outputs at the grid's stride, layer by layer: 3x3 kernels, then two merging layers.
  sides = [127, 125, 123, 121, 119, 117, 115, 57]
  channels = [3, 32, 64, 128, 128, 64, 32, 32, 64]
  base = sum(
    side**2 * 9 * before * after
    for side, before, after in zip(sides, channels[:-1], channels[1:], strict=True)
  )
  merge = 13**2 * (4 * 64 * 128 + 128 * 64)
  assert flops.image_flops(config) == 2 * (base + merge)


def test_crops_that_no_chip_can_have_are_refused(monkeypatch):
  config = default.get_config()
  config.train.pairs = 'crops'
  from patch_svdd_jax.system import sharding
  from patch_svdd_jax.tpu_planning import aot

  monkeypatch.setattr(aot, 'mesh_of', lambda _: sharding.all_devices())
  with pytest.raises(UserError, match='give a multiple of 4'):
    training_plan.compile_for('v5e:2x2', config, 4, 5)
