"""Which phases are in compiled programs, and in traces of whole commands."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import phases, trace_file
from patch_svdd_jax.commands import main
from patch_svdd_jax.detection import anomaly_map
from patch_svdd_jax.models import architecture, embedding, encoder
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.training import train_state, train_step
from tests.support import banks
from tests.support.runs import COUNT, IMAGES, MEAN, mesh_of, tiny_config


def phases_of(lowered):
  """The phases in the names of a program's operations."""
  names = re.findall(r'loc\("([^"]+)"', lowered.as_text(debug_info=True))
  return {trace_file.phase(name) for name in names} - {trace_file.OTHER}


@pytest.mark.parametrize('pairs', ['patches', 'crops'])
def test_a_train_step_has_its_phases_forward_and_backward(pairs):
  config = tiny_config(scales=(8,), pairs=pairs)
  state = jax.eval_shape(lambda: train_state.init_state(config))
  hyperparams = jax.eval_shape(lambda: train_state.hyperparams(config, {}))
  step = train_step.make_train_step(config, COUNT, mesh_of(1))
  lowered = step.lower(state, IMAGES, MEAN, hyperparams)
  assert phases_of(lowered) == {'sampling', 'encoder', 'losses', 'optimiser'}
  for phase in ('encoder', 'losses'):
    assert f'/jvp({phase})' in lowered.as_text(debug_info=True)
    assert f'/transpose(jvp({phase}))' in lowered.as_text(debug_info=True)


def test_scoring_has_its_phases():
  config = tiny_config(scales=(8,))
  params = jax.eval_shape(lambda: encoder.init_encoder(config))
  embed = embedding.make_embed_batch(architecture.from_config(config.encoder), {8: 4})
  assert phases_of(embed.lower(params, MEAN, IMAGES[:4, None])) == {'embed'}
  rows, queries = banks.make(banks.gaussian_pair)
  bank, sizes = memory_bank.from_rows(rows, mesh_of(1)), nearest.BlockSizes(64, 256)
  search = nearest.search_on_devices.lower(queries, bank, 1, sizes)
  assert phases_of(search) == {'screen', 'look'}
  map_of = anomaly_map.upsample.lower(
    jnp.ones((1, 5, 6)), image_size=(40, 48), receptive_field=8, stride=8
  )
  assert phases_of(map_of) == {'map'}


def test_a_phase_is_the_innermost_one():
  assert trace_file.phase('jit(train)/while/body/transpose(jvp(losses))/mul') == 'losses'
  assert trace_file.phase('jit(_search)/look/while/body/screen/dot_general') == 'screen'
  assert trace_file.phase('jit(f)/mapped/Encoder/sampling_of/add') == trace_file.OTHER
  assert trace_file.phase('') == trace_file.OTHER


@pytest.fixture
def parts(tmp_path):
  """A folder of normal images, and of others."""
  rng = np.random.default_rng(0)
  for kind, count in (('train/good', 10), ('test/good', 18), ('test/bad', 18)):
    folder = tmp_path / 'parts' / kind
    folder.mkdir(parents=True)
    for number in range(count):
      pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
      Image.fromarray(pixels).save(folder / f'{number}.png')
  return tmp_path / 'parts'


@pytest.mark.slow
def test_traces_of_commands_have_their_phases_and_stages(parts, tmp_path, capsys):
  config = tmp_path / 'config.py'
  config.write_text(CONFIG)
  run, command = str(tmp_path / 'run'), f'--config={config}:{parts}'

  def recorded(name, *arguments):
    folder = tmp_path / name
    assert main([name, *arguments, '--profile', str(folder)]) == 0
    path = trace_file.newest(folder)
    assert f'written: {path.parent}: a trace of steps' in capsys.readouterr().out
    trace = trace_file.read(path, phases.HOST)
    rows = {row['name']: row['share'] for row in phases.rows_of(trace)}
    assert 0 <= rows['device idle'] < 1
    inside = phases.within(trace.steps, trace.operations)
    return {each.name for each in inside}, {each.name for each in trace.stages}, trace.steps

  found, stages, steps = recorded('train', command, '--workdir', run)
  assert found >= {'sampling', 'encoder', 'losses', 'optimiser'}
  assert stages == {'save', 'validate'}  # and no compilation
  assert [step.name for step in steps] == ['train'] * 4
  found, stages, steps = recorded('eval', '--workdir', run, '--no-random-encoder')
  assert found >= {'embed', 'screen', 'look', 'map'}
  assert stages >= {'embed', 'search', 'map'}
  assert [step.name for step in steps] == ['score'] * 4
  arguments = ['--model', run, '--output', str(tmp_path / 'found'), '--pictures', 'all']
  found, stages, steps = recorded('predict', *arguments, str(parts / 'test'))
  assert found >= {'embed', 'screen', 'look', 'map'}
  assert stages >= {'decode', 'embed', 'search', 'map', 'verdict', 'draw'}


CONFIG = """
from patch_svdd_jax.configs import default

def get_config(root):
  config = default.get_config()
  config.data.update(name='folder', category='', root=root, prepared=root + '.prepared')
  config.data.image_size = (40, 48)
  config.encoder.update(receptive_field=8, scales=(8,), depth=2, width=0.25, embed_dim=8)
  config.train.update(steps=12, steps_per_call=2, batch_size=8)
  config.checkpoint.update(every=4)
  config.score.update(strides=(4,), batch_size=1)
  config.calibration.folds = 2
  return config
"""
