"""The authors' files against a numpy float64 encoder."""

import pickle
import struct

import jax
import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.architecture import Architecture, Convolution
from patch_svdd_jax.models.authors_weights import encoder_params
from patch_svdd_jax.models.encoder import Encoder
from patch_svdd_jax.models.torch_state_dict import read_state_dict

WIDTHS = (3, 32, 64, 128, 128, 64, 32, 32)


# A writer of PyTorch's legacy format, operation by operation.


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def integers(*values):
  return b''.join(b'J' + struct.pack('<i', value) for value in values)


def tensor(name, array):
  """The operations that make a dense tensor of a storage that goes by the tensor's name."""
  kind = text('storage') + b'ctorch\nFloatStorage\n'
  storage = b'(' + kind + text(name) + text('cpu') + integers(array.size) + b'NtQ'
  size, strides = integers(*array.shape), integers(*(s // 4 for s in array.strides))
  layout = integers(0) + b'(' + size + b't(' + strides + b't'
  return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + layout + b'\x89}tR'


@pytest.fixture
def write(tmp_path):
  def write_file(arrays):
    items = b''.join(text(name) + tensor(name, array) for name, array in arrays.items())
    values = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, list(arrays))
    *preamble, keys = (pickle.dumps(value, 2) for value in values)
    stored = [struct.pack('<q', array.size) + array.tobytes() for array in arrays.values()]
    path = tmp_path / 'enchier.pkl'
    path.write_bytes(b''.join([*preamble, b'\x80\x02}(', items, b'u.', keys, *stored]))
    return path

  return write_file


# What the weights mean: the authors' encoder in float64, straight from the state dict.


def convolve(x, weights, name, stride=1):
  """VALID convolution of [B, H, W, C] with OIHW weights."""
  kernel = weights[f'{name}.weight'].astype(np.float64)
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
  windows = windows[:, ::stride, ::stride]
  return np.tensordot(windows, kernel, ((3, 4, 5), (1, 2, 3))) + weights[f'{name}.bias']


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


def embed_32(patches, weights):
  x = leaky(convolve(patches, weights, 'enc.conv1', 2))
  for i in range(2, 8):
    x = leaky(convolve(x, weights, f'enc.conv{i}'))
  return np.tanh(convolve(x, weights, 'enc.conv8'))


def embed_64(patches, weights):
  quadrants = [[patches[:, i : i + 32, j : j + 32] for j in (0, 32)] for i in (0, 32)]
  rows = [np.concatenate([embed_32(q, weights) for q in row], axis=2) for row in quadrants]
  x = leaky(convolve(np.concatenate(rows, axis=1), weights, 'conv1'))
  return np.tanh(convolve(x, weights, 'conv2'))


def embed_grid(image, weights, size, stride):
  """Embeds the patches of [H, W, 3] one by one."""
  height, width = (np.array(image.shape[:2]) - size) // stride + 1
  corners = [(stride * i, stride * j) for i in range(height) for j in range(width)]
  patches = np.stack([image[i : i + size, j : j + size] for i, j in corners])
  embed = {32: embed_32, 64: embed_64}[size]
  return embed(patches, weights).reshape(height, width, -1)


def flax_embeddings(embed_dim):
  """The project's encoder, compiled once: (params, image) -> {64: grid, 32: grid}."""
  layers = zip((*WIDTHS[1:], embed_dim), (2, *[1] * 7), strict=True)
  base = tuple(Convolution(3, stride, features) for features, stride in layers)
  encoder = Encoder(Architecture(32, base, (64, 32), 128, embed_dim))
  return jax.jit(lambda params, x: encoder.apply({'params': params}, x[None], {64: 8, 32: 16}))


def assert_embeddings_agree(path, weights, embed, atol=1e-5):
  """In float64 to 1e-12: it is the same function. In float32 to its rounding, `atol`."""
  image = np.random.default_rng(0).uniform(-0.5, 0.5, (72, 67, 3)).astype(np.float32)
  params = encoder_params(path)
  single = embed(params, image)
  with jax.enable_x64(True):
    double = embed(jax.tree.map(np.float64, params), image.astype(np.float64))
  for size, stride in ((64, 8), (32, 16)):
    expected = embed_grid(image.astype(np.float64), weights, size, stride)
    np.testing.assert_allclose(np.asarray(double[size][0]), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(single[size][0]), expected, rtol=0, atol=atol)


def random_encoder(embed_dim):
  """A state dict under the authors' names; weights of about unit gain."""
  rng = np.random.default_rng(1)
  widths = (*WIDTHS, embed_dim)
  shapes = {f'enc.conv{i + 1}': (widths[i + 1], widths[i], 3, 3) for i in range(8)}
  shapes |= {'conv1': (128, embed_dim, 2, 2), 'conv2': (embed_dim, 128, 1, 1)}
  arrays = {}
  for name, shape in shapes.items():
    arrays[f'{name}.weight'] = rng.normal(0, 1.4 / np.prod(shape[1:]) ** 0.5, shape)
    arrays[f'{name}.bias'] = rng.normal(0, 0.1, shape[:1])
  return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.usefixtures('optimised')
def test_authors_files(shared_data):
  paths = sorted((shared_data / 'authors_checkpoints').glob('*/enchier.pkl'))
  assert len(paths) == 15
  embed = flax_embeddings(64)
  for path in paths:
    weights = read_state_dict(path)
    assert sum(array.size for array in weights.values()) == 401_984
    leaves = jax.tree.leaves(encoder_params(path))
    assert sum(leaf.size for leaf in leaves) == 401_984
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
    # Capsule's weights amplify most: with them numpy's own float32 pass is 2e-5 off at K=32.
    atol = 3e-5 if path.parent.name == 'capsule' else 1e-5
    assert_embeddings_agree(path, weights, embed, atol)


@pytest.mark.parametrize('embed_dim', [7, 64])
def test_encoder_of_any_dimension(write, embed_dim):
  weights = random_encoder(embed_dim)
  path = write(weights)
  params = encoder_params(path)
  assert params['level_32']['conv_7']['bias'].shape == (embed_dim,)
  np.testing.assert_array_equal(
    params['level_64']['conv_0']['kernel'][1, 0, 2, 5], weights['conv1.weight'][5, 2, 1, 0]
  )
  assert_embeddings_agree(path, weights, flax_embeddings(embed_dim))


def encoder_refusal(write, **changed):
  arrays = {k: v for k, v in (random_encoder(4) | changed).items() if v is not None}
  path = write(arrays)
  with pytest.raises(UserError) as caught:
    encoder_params(path)
  line = str(caught.value)
  assert line.startswith(f'{path}: ')
  assert '; ' in line
  assert line.isprintable()
  return line


def test_another_networks_weights(write):
  ones = np.ones((2, 2), np.float32)
  missing = encoder_refusal(write, **{'conv2.bias': None, 'enc.conv8.bias': None})
  assert 'lacks conv2.bias, enc.conv8.bias' in missing
  assert 'has also fc.bias, fc.weight' in encoder_refusal(
    write, **{'fc.weight': ones, 'fc.bias': ones}
  )
  wrong = encoder_refusal(write, **{'enc.conv3.weight': ones})
  assert 'enc.conv3.weight has shape (2, 2), not (128, 64, 3, 3)' in wrong
  other_dim = encoder_refusal(write, **{'enc.conv8.bias': ones[0]})
  assert 'enc.conv8.weight has shape (4, 32, 3, 3), not (2, 32, 3, 3)' in other_dim
  nan = encoder_refusal(write, **{'conv1.bias': np.full(128, np.nan, np.float32)})
  assert 'NaN or infinity in conv1.bias' in nan
