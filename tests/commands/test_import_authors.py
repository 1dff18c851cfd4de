"""`import-authors`: from a file in the authors' form to an evaluated model."""

import collections
import json
import os
import pathlib
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import main
from patch_svdd_jax.training.checkpoints import Checkpoints

WIDTHS = (3, 32, 64, 128, 128, 64, 32, 32)
SIZE = (72, 80)


class Storage:
  """Pickles as PyTorch's legacy format stores a tensor's numbers: by name, to follow later."""

  def __init__(self, name, size):
    self.identity = ('storage', FloatStorage, name, 'cpu', size, None)


class FloatStorage: ...


class Tensor:
  """Pickles as a call of PyTorch's function that rebuilds a tensor."""

  def __init__(self, name, array):
    strides = tuple(stride // array.itemsize for stride in array.strides)
    self.arguments = (Storage(name, array.size), 0, array.shape, strides, False, {})

  def __reduce__(self):
    return _rebuild_tensor_v2, self.arguments


def _rebuild_tensor_v2(*_): ...


class Pickler(pickle._Pickler):
  """Writes the two stand-ins above under PyTorch's names, which need not be importable."""

  def persistent_id(self, obj):
    return obj.identity if isinstance(obj, Storage) else None

  def save_global(self, obj, name=None):
    modules = {FloatStorage: b'torch', _rebuild_tensor_v2: b'torch._utils'}
    if obj in modules:
      self.write(b'c' + modules[obj] + b'\n' + obj.__name__.encode() + b'\n')
      self.memoize(obj)
    else:
      super().save_global(obj, name)

  dispatch = pickle._Pickler.dispatch | {type: save_global, type(lambda: 0): save_global}


def random_weights(embed_dim):
  """Weights of about unit gain under the authors' names, OIHW."""
  rng = np.random.default_rng(0)
  widths = (*WIDTHS, embed_dim)
  shapes = {f'enc.conv{i + 1}': (widths[i + 1], widths[i], 3, 3) for i in range(8)}
  shapes |= {'conv1': (128, embed_dim, 2, 2), 'conv2': (embed_dim, 128, 1, 1)}
  weights = {}
  for name, shape in shapes.items():
    weights[f'{name}.weight'] = rng.normal(0, 1.4 / np.prod(shape[1:]) ** 0.5, shape)
    weights[f'{name}.bias'] = rng.normal(0, 0.1, shape[:1])
  return {name: array.astype(np.float32) for name, array in weights.items()}


def write_weights(path, weights):
  with path.open('wb') as file:
    for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}):
      pickle.dump(value, file, protocol=2)
    tensors = collections.OrderedDict((name, Tensor(name, a)) for name, a in weights.items())
    Pickler(file, protocol=2).dump(tensors)
    pickle.dump(list(weights), file, protocol=2)
    for array in weights.values():
      file.write(struct.pack('<q', array.size) + array.tobytes())
  return path


def run(capsys, *arguments):
  """(status, standard output, standard error) of a command."""
  status = main([str(argument) for argument in arguments])
  shown = capsys.readouterr()
  return status, shown.out, shown.err


@pytest.fixture(scope='module')
def weights():
  return random_weights(8)


@pytest.fixture
def imported(capsys, tmp_path, weights):
  path = write_weights(tmp_path / 'enchier.pkl', weights)
  assert run(capsys, 'import-authors', path, '--workdir', tmp_path / 'run')[0] == 0
  return tmp_path / 'run'


def test_what_a_workdir_gets(capsys, tmp_path, weights):
  path, workdir = write_weights(tmp_path / 'enchier.pkl', weights), tmp_path / 'new/run'
  status, out, err = run(capsys, 'import-authors', path, '--workdir', workdir)
  assert (status, err) == (0, '')
  assert out.startswith(f'{workdir}: imported; ')
  assert {entry.name for entry in workdir.iterdir()} == {'config.json', 'checkpoints'}
  config = configuration.load(workdir)
  assert config.encoder.embed_dim == 8
  assert config.encoder.scales == (64, 32)
  assert config.data.resize == 'nearest'
  with Checkpoints(workdir) as checkpoints:
    like = {'level_32': {}, 'level_64': {}}
    for level, name, prefix, count in (
      ('level_32', 'enc.conv', 'conv_', 8),
      ('level_64', 'conv', 'conv_', 2),
    ):
      for i in range(count):
        like[level][f'{prefix}{i}'] = {
          'kernel': weights[f'{name}{i + 1}.weight'].transpose(2, 3, 1, 0),
          'bias': weights[f'{name}{i + 1}.bias'],
        }
    assert checkpoints.latest == 0
    saved = checkpoints.restore_encoder(like, checkpoints.latest)
  for level, layers in like.items():
    for layer, arrays in layers.items():
      for name, array in arrays.items():
        np.testing.assert_array_equal(saved[level][layer][name], array)


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def test_eval_accepts_it(capsys, tmp_path, imported):
  rng = np.random.default_rng(0)
  for name in ('train/good/0', 'train/good/1', 'test/good/0', 'test/spot/0'):
    image = rng.normal(128, 10, (*SIZE, 3)).astype(np.uint8)
    if name == 'test/spot/0':
      image[20:30, 20:30] = 250
    save(tmp_path / f'parts/{name}.png', image)
  mask = np.zeros(SIZE, np.uint8)
  mask[20:30, 20:30] = 255
  save(tmp_path / 'parts/ground_truth/spot/0.png', mask)
  arguments = [
    '--no-random-encoder',
    '--config=folder',
    '--config.data.light=kept',
    '--config.train.mean=image',
    '--config.encoder.embed_dim=8',
    f'--config.data.root={tmp_path}/parts',
    f'--config.data.prepared={tmp_path}/prepared',
    '--config.data.image_size=(72,80)',
    '--config.score.strides=(8,8)',
    '--config.score.features=embedding',
    '--config.score.whiten=false',
  ]
  status, out, _ = run(capsys, 'eval', '--workdir', imported, *arguments)
  assert status == 0
  assert 'folder/parts, 0 steps, 2 test images' in out
  metrics = json.loads((imported / 'eval/metrics.json').read_text())
  assert list(metrics['maps']) == ['k64', 'k32', 'sum', 'product']
  # One of the two images is held out.
  assert metrics['timing']['bank_rows'] == 2 * 3 + 6 * 7
  # Even random weights see a spot this bright: the weights, the bank and the maps belong together.
  assert metrics['maps']['k32']['image_auroc'] == 1
  assert metrics['maps']['k32']['pixel_auroc'] > 0.9


def test_a_run_is_not_overwritten(capsys, tmp_path, imported):
  before = {path: path.read_bytes() for path in imported.rglob('*') if path.is_file()}
  path = tmp_path / 'enchier.pkl'
  status, out, err = run(capsys, 'import-authors', path, '--workdir', imported)
  assert (status, out) == (2, '')
  assert err == f'error: {imported} holds a run already: name a new --workdir\n'
  assert {path: path.read_bytes() for path in imported.rglob('*') if path.is_file()} == before


def test_what_a_killed_import_left_is_not_taken_for_a_run(capsys, tmp_path, imported):
  (imported / 'config.json').unlink()
  path = tmp_path / 'enchier.pkl'
  status, _, err = run(capsys, 'import-authors', path, '--workdir', imported)
  assert (status, err) == (2, f'error: {imported} holds a run already: name a new --workdir\n')


class Hostile:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


class HostileCommand(Hostile):
  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('kind', [Hostile, HostileCommand])
def test_a_hostile_file(capsys, tmp_path, kind):
  canary = tmp_path / 'canary'
  pickle.loads(pickle.dumps(kind(canary), 2))
  assert canary.exists(), 'the payload does nothing, so the test would prove nothing'
  canary.unlink()
  path = tmp_path / 'enchier.pkl'
  values = (
    0x1950A86A20F9469CFC6C,
    1001,
    {'little_endian': True},
    {'conv1.weight': kind(canary)},
    [],
  )
  path.write_bytes(b''.join(pickle.dumps(value, 2) for value in values))
  status, out, err = run(capsys, 'import-authors', path, '--workdir', tmp_path / 'run')
  assert (status, out) == (2, '')
  assert err.startswith(f'error: {path}: ')
  assert err.count('\n') == 1
  assert not canary.exists()
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('contents', [None, b'', b'not a pickle'])
def test_no_such_weights(capsys, tmp_path, contents):
  path = tmp_path / 'enchier.pkl'
  if contents is not None:
    path.write_bytes(contents)
  status, out, err = run(capsys, 'import-authors', path, '--workdir', tmp_path / 'run')
  assert (status, out) == (2, '')
  assert err.startswith(f'error: {path}: ')
  assert err.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_a_stray_argument(capsys, tmp_path):
  status, _, err = run(
    capsys, 'import-authors', 'file', '--workdir', tmp_path / 'run', '--config=mvtec'
  )
  assert (status, err) == (2, "error: unexpected argument '--config=mvtec': see --help\n")


def test_a_workdir_that_cannot_be_written(capsys, tmp_path, weights):
  path = write_weights(tmp_path / 'enchier.pkl', weights)
  (tmp_path / 'file').touch()
  status, out, err = run(capsys, 'import-authors', path, '--workdir', tmp_path / 'file/run')
  assert (status, out) == (2, '')
  assert str(tmp_path / 'file/run') in err
  assert err.count('\n') == 1
