"""The train step, the embedding pass and the search, compiled for TPUs that are not here."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding, encoder, flops
from patch_svdd_jax.search import memory_bank, screening
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.sharding import DEVICES
from patch_svdd_jax.tpu_planning import aot, programs
from patch_svdd_jax.tpu_planning.programs import Work

needs_libtpu = pytest.mark.skipif(
  not importlib.util.find_spec('libtpu'), reason='no libtpu, the TPU compiler'
)


# The published peak of a chip, and its devices.
TOPOLOGIES = {
  'v4:2x2x1': (275e12, 1),
  'v5e:2x2': (197e12, 1),
  'v5p:2x2x1': (459e12, 1),
  'v6e:2x2': (918e12, 1),
  'tpu7x:2x2x1': (2307e12, 2),
}
PAIRS, IMAGES = 8, 5

# A process of its own: the TPU's library keeps the process that loads it.
COMPILE = r"""
import json, re, sys
import jax
jax.config.update('jax_platforms', 'cpu')
from patch_svdd_jax import configuration
from patch_svdd_jax.tpu_planning import aot, programs
config = configuration.from_json(sys.argv[1], 'test')
texts = []
compile_fitting = aot.compile_fitting
def keep(lowered, options):
  compiled = compile_fitting(lowered, options)
  texts.append(compiled.as_text())
  return compiled
aot.compile_fitting = keep
found = {}
for topology in sys.argv[2:]:
  both = programs.train(topology, config, 8, 5), programs.embed(topology, config, 2)
  for name, program, text in zip(('train', 'embed'), both, texts[-2:]):
    facts = program.to_json()
    # Products are written as convolutions that have no place in their dimensions.
    facts['convolutions'] = len(re.findall(r' convolution\(.*dim_labels=[a-z]*[0-9]', text))
    facts['branches'] = text.count(' conditional(')
    found[f'{topology} {name}'] = facts
for images in ('replicated', 'sharded'):
  config.train.images = images
  found[f'2 slices {images}'] = programs.train('v5e:2x2', config, 8, 5, slices=2).to_json()
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


@pytest.mark.parametrize(('rows', 'small'), [(3000, 0), (3000, 2**20), (100, 2**20), (3, 0)])
def test_the_described_bank_is_as_a_real_one(rows, small, monkeypatch):
  monkeypatch.setattr(memory_bank, 'SMALL', small)
  # What a bank chooses by its data is not described.
  monkeypatch.setattr(screening, 'WIDTHS', ())
  mesh = Mesh(np.array(jax.devices()), (DEVICES,))
  values = np.random.default_rng(0).normal(size=(rows, 24)).astype(np.float32)
  bank = memory_bank.from_rows(values, mesh, jnp.bfloat16)
  queries, described = programs.arguments(Work(rows, 50, 24, 1, 24), mesh)
  assert (queries.shape, queries.dtype) == ((50, 24), jnp.float32)
  assert jax.tree.structure(described) == jax.tree.structure(bank)
  for array, described_array in zip(jax.tree.leaves(bank), jax.tree.leaves(described), strict=True):
    assert described_array.shape == array.shape
    assert described_array.dtype == array.dtype
    assert described_array.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_flops_are_those_of_the_screening_products():
  assert Work(1_000_000, queries=1000).flops == 2 * 1000 * 1_000_000 * 128
  assert Work(10, queries=10, dim=512, components=130).flops == 2 * 10 * 10 * 256


@pytest.mark.parametrize(
  ('work', 'named'),
  [
    (Work(0), 'bank_rows=0'),
    (Work(10, queries=0), 'queries=0'),
    (Work(10, dim=0), 'dim=0'),
    (Work(10, k=11), 'k=11: the memory bank has 10 rows'),
    (Work(10, dim=8), 'components=64: the rows have 8 dimensions'),
  ],
)
def test_nonsense_is_refused(work, named):
  with pytest.raises(UserError, match='^' + named) as caught:
    programs.search('v5e:2x2', work)
  assert '\n' not in str(caught.value)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match=r"pip install 'patch_svdd_jax\[plan\]'$"):
    programs.search('v5e:2x2', Work(10))


def plan(*arguments):
  """Runs the command: the TPU's library keeps the process that loads it."""
  return subprocess.run(
    [sys.executable, '-m', 'patch_svdd_jax', 'plan', 'search', *map(str, arguments)],
    env={name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@needs_libtpu
def test_a_topology_that_the_compiler_refuses():
  done = plan('--topology', 'v5e:3x7', '--bank-rows', 10)
  assert (done.returncode, done.stdout) == (2, '')
  assert "error: no TPU topology 'v5e:3x7', says libtpu 0." in done.stderr


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@needs_libtpu
def test_the_search_compiles_for_a_tpu(tmp_path):
  rows, queries, chips = 2**18, 512, 4
  file = tmp_path / 'plan.json'
  done = plan(
    '--topology', 'v5e:2x2', '--bank-rows', rows, '--queries', queries, '--json', file
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert '| v5e:2x2 ' in done.stdout
  assert done.stdout.endswith(f'written: {file}\n')
  # The library's own log is no concern of the user's.
  assert 'WARNING' not in done.stderr
  (found,) = json.loads(file.read_text())['rows']
  assert (found['chips'], found['rows_on_chip'], found['sharded']) == (chips, rows // chips, True)
  assert found['kernels'] == 1
  assert set(found['collectives']) == {'all-gather', 'all-reduce'}
  assert found['peak_seconds'] == pytest.approx(2 * queries * rows * 128 / (chips * 197e12))
  assert found['peak_seconds'] < found['compiler_seconds'] < 10 * found['peak_seconds']
  # Rows in float32 and their vectors in bfloat16; the queries are small beside them.
  bank = rows // chips * (64 * 4 + 128 * 2)
  assert bank <= found['memory']['arguments'] <= 1.02 * bank
  products = queries * (rows // chips) * 4
  assert found['memory']['temporaries'] < products / 2


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@needs_libtpu
@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_the_train_step_compiles(compiled, topology):
  found = compiled[f'{topology} train']
  config = small_config()
  config.train.batch_size = 4 * PAIRS
  expected = flops.step_flops(config)
  assert (found['chips'], found['flops']) == (4, expected)
  peak, devices = TOPOLOGIES[topology]
  assert found['peak_seconds'] == pytest.approx(expected / (4 * peak))
  assert (found['utilisation'] or 0) <= 1
  # Images and the mean on each chip, and parameters with the optimiser's two moments.
  inputs = devices * (IMAGES * 64 * 64 * 3 + 64 * 64 * 3 * 4)
  assert inputs < found['memory']['arguments'] < 2 * inputs + devices * 2**20
  assert found['collectives'].keys() == {'all-reduce'}
  size = devices * gradients()
  assert size <= found['collectives']['all-reduce']['bytes'] <= 1.05 * size
  assert (found['slices'], found['between_slices']) == (1, {})
  # Of two layers forward and by the parameters, but none by the pixels; and no branch of another
  # platform, only the one for steps past the last.
  assert found['convolutions'] == 5
  assert found['branches'] == 1


def gradients():
  """Bytes of the gradients: of the encoder, of the classifier."""
  values = 3 * 3 * 3 * 16 + 16 + 7 * 7 * 16 * 8 + 8
  values += (8 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 8
  # The weight of the classifier's last layer has none.
  return (values - 128 * 8) * 4


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@needs_libtpu
def test_only_gradients_cross_between_slices(compiled):
  replicated, sharded = (compiled[f'2 slices {images}'] for images in ('replicated', 'sharded'))
  assert (replicated['chips'], replicated['slices']) == (8, 2)
  assert replicated['between_slices'].keys() == {'all-reduce'}
  # Each chip sends its quarter of its slice's sum, and some statistics, in tiles of 8 x 128.
  sent = replicated['between_slices']['all-reduce']['bytes']
  assert gradients() / 4 <= sent <= gradients() / 4 + 4 * 8 * 128 * 4
  # Images that are sharded are sent for, within a slice.
  assert sharded['between_slices'] == replicated['between_slices']
  within = [
    sum(kind['bytes'] for kind in found['collectives'].values()) for found in (replicated, sharded)
  ]
  assert within[1] > within[0]


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@needs_libtpu
@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_the_embedding_pass_compiles(compiled, topology):
  found = compiled[f'{topology} embed']
  # 13 x 13 patches, and 31 x 31 outputs of the first layer: two images on each of four chips.
  macs = 31**2 * 9 * 3 * 16 + 13**2 * 7**2 * 16 * 8
  assert found['flops'] == 8 * 2 * macs
  peak, _ = TOPOLOGIES[topology]
  assert found['peak_seconds'] == pytest.approx(6 * found['flops'] / (4 * peak))
  assert found['convolutions'] == 2
  assert found['branches'] == 0
  assert found['collectives'] == {}
  assert found['memory']['output'] >= 2 * 13 * 13 * 8 * 4


def test_the_embedding_pass_is_that_of_the_features(monkeypatch):
  config = small_config()
  config.encoder.depth = 3
  names = ('embedding', 'hidden', 'thumbnail')
  config.score.update(features=names, whiten=True, components=20)
  monkeypatch.setattr(aot, 'mesh_of', lambda _: sharding.all_devices())
  monkeypatch.setattr(aot, 'compile_program', lambda *arguments, **_: arguments[3])
  lowered = programs.embed('v5e:2x2', config, 2)
  assert {k: grid.shape for k, grid in lowered.out_info.items()} == {16: (8, 13, 13, 20)}


def test_the_embedding_pass_that_is_planned_gives_the_bits_of_the_one_that_runs(monkeypatch):
  """The program that `shard_map` makes for described chips, against `pmap`, on four devices."""
  config = small_config()
  config.encoder.update(depth=3, scales=(32, 16))
  config.score.strides = (8, 4)
  monkeypatch.setattr(aot, 'mesh_of', lambda _: sharding.all_devices())
  monkeypatch.setattr(aot, 'compile_program', lambda *arguments, **_: arguments[3])
  planned = programs.embed('v5e:2x2', config, 2).compile()
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 64, 64, 3), np.uint8)
  mean = rng.uniform(0, 255, (64, 64, 3)).astype(np.float32)
  params, mean = sharding.replicate((encoder.init_encoder(config), mean))
  found = planned(params, mean, sharding.place(images, sharding.all_devices(), sharding.SHARDED))
  arch, strides = architecture.from_config(config.encoder), architecture.strides_of(config)
  run = embedding.embed(arch, params, mean, images, strides, batch_size=2)
  assert found.keys() == run.keys() == {32, 16}
  for k, (rows, count) in run.items():
    assert (rows.shape[:2], count) == ((4, 2), 8)
    assert np.ptp(found[k]) > 0
    np.testing.assert_array_equal(np.asarray(found[k]).reshape(rows.shape), rows, strict=True)


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


def test_images_that_the_devices_of_a_chip_cannot_share_are_refused(monkeypatch):
  monkeypatch.setattr(aot, 'mesh_of', lambda _: sharding.all_devices())
  with pytest.raises(UserError, match=r'^3 images on each chip of tpu7x:1x1x2: .* multiple of 2, '):
    programs.embed('tpu7x:1x1x2', small_config(), 3)


def test_crops_that_no_chip_can_have_are_refused(monkeypatch):
  config = default.get_config()
  config.train.pairs = 'crops'
  monkeypatch.setattr(aot, 'mesh_of', lambda *_: sharding.all_devices())
  with pytest.raises(UserError, match='give a multiple of 4'):
    programs.train('v5e:2x2', config, 4, 5)
