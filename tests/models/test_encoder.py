"""Dense against patch-wise embeddings, both against float64; the position classifier."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.encoder import Encoder, PositionClassifier, init_encoder

# LLVM's optimisations take far longer than what they make faster here.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

SCALES = (128, 64, 32)
IMAGE_SIZE = (139, 161)  # odd, not square, and 128-pixel patches have room to move
NON_HIERARCHICAL = {
  'receptive_field': 64,
  'depth': 4,
  'channels': (64, 64, 128),
  'strided_layers': 3,
  'strided_kernel': 5,
  'scales': (64,),
}


# Of the authors' settings and seed 0; see the test.
FIRST_DRAWN = (-0.141777575, -0.13341248, 0.0302832555, 0.0543066636, -0.0377144739, -0.0172809865)


def encoder_config(**settings):
  config = default.get_config().encoder
  config.update(settings)
  return config


def parameter_shapes(encoder):
  """The encoder's parameters as shapes, undrawn."""
  size = encoder.architecture.levels[-1]
  init = functools.partial(encoder.init, method='initialize')
  return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, size, size, 3)))['params']


def make(**settings):
  """An encoder and parameters large enough that its outputs differ from patch to patch.

  With the initial ones a deep encoder's outputs hardly do: any two would agree to 1e-5.
  """
  arch = architecture.from_config(encoder_config(**settings))
  rng = np.random.default_rng(0)

  def draw(kernel, inputs, outputs):
    bound = math.sqrt(6 / (kernel**2 * inputs))
    return {
      'kernel': rng.uniform(-bound, bound, (kernel, kernel, inputs, outputs)).astype(np.float32),
      'bias': rng.uniform(-0.1, 0.1, outputs).astype(np.float32),
    }

  inputs, base = 3, {}
  for index, layer in enumerate(arch.base):
    base[f'conv_{index}'] = draw(layer.kernel, inputs, layer.features)
    inputs = layer.features
  params = {f'level_{arch.receptive_field}': base}
  for level in arch.levels[1:]:
    params[f'level_{level}'] = {
      'conv_0': draw(2, arch.embed_dim, arch.merge_features),
      'conv_1': draw(1, arch.merge_features, arch.embed_dim),
    }
  return Encoder(arch), {'params': params}


def random_images(size, count=2):
  return np.random.default_rng(0).uniform(-0.5, 0.5, (count, *size, 3)).astype(np.float32)


def patch_grid(images, size, stride):
  """All patches of all images, cut one by one: [N * rows * columns, K, K, 3] and the grid."""
  rows, columns = ((extent - size) // stride + 1 for extent in images.shape[1:3])
  patches = [
    image[row * stride : row * stride + size, column * stride : column * stride + size]
    for image in images
    for row in range(rows)
    for column in range(columns)
  ]
  return np.stack(patches), (len(images), rows, columns)


def check_dense(encoder, variables, images, strides, most=40):
  """Every scale's dense map equals patches embedded alone; of many patches a sample is compared."""
  patches, places, grids = {}, {}, {}
  for k, stride in strides.items():
    cut, grids[k] = patch_grid(images, k, stride)
    places[k] = np.random.default_rng(k).permutation(len(cut))[:most]
    patches[k] = cut[places[k]]

  @jit
  def embed(variables, images, patches):
    alone = {k: encoder.apply(variables, cut, method='embed_patches') for k, cut in patches.items()}
    return encoder.apply(variables, images, strides), alone

  dense, alone = embed(variables, images, patches)
  assert dense.keys() == strides.keys()
  for k, grid in dense.items():
    assert grid.shape[:3] == grids[k]
    found = np.asarray(grid).reshape(-1, grid.shape[-1])[places[k]]
    np.testing.assert_allclose(found, alone[k], atol=1e-5, rtol=0)
    assert np.std(found, axis=0).mean() > 0.01  # the patches do differ
  return dense


# An independent encoder, in float64.


def convolve64(x, layer, stride):
  """[H, W, C] with a kernel [k, k, C, F] and a bias [F], pixel by pixel."""
  kernel, bias = (np.asarray(layer[name], np.float64) for name in ('kernel', 'bias'))
  size = kernel.shape[0]
  rows, columns = ((extent - size) // stride + 1 for extent in x.shape[:2])
  output = np.empty((rows, columns, kernel.shape[-1]))
  for row, column in np.ndindex(rows, columns):
    window = x[row * stride : row * stride + size, column * stride : column * stride + size]
    output[row, column] = np.tensordot(window, kernel, 3) + bias
  return output


def leaky64(x):
  return np.where(x > 0, x, 0.1 * x)


def base64(patch, params, depth, strided_layers):
  x = patch.astype(np.float64)
  for index in range(depth):
    x = convolve64(x, params[f'conv_{index}'], 2 if index < strided_layers else 1)
    x = np.tanh(x) if index == depth - 1 else leaky64(x)
  assert x.shape[:2] == (1, 1)
  return x[0, 0]


def hierarchical64(patch, params, depth=8):
  """The encoder's recursion: four quadrants, each embedded by the level below."""
  size = len(patch)
  if size == 32:
    return base64(patch, params['level_32'], depth, 1)
  half, layers = size // 2, params[f'level_{size}']
  quadrants = [
    [hierarchical64(patch[i : i + half, j : j + half], params, depth) for j in (0, half)]
    for i in (0, half)
  ]
  hidden = leaky64(convolve64(np.array(quadrants), layers['conv_0'], 1))
  return np.tanh(convolve64(hidden, layers['conv_1'], 1))[0, 0]


def test_default_encoder_has_the_authors_parameters():
  params = parameter_shapes(Encoder(architecture.from_config(encoder_config())))
  leaves = jax.tree.leaves(params)
  assert sum(math.prod(leaf.shape) for leaf in leaves) == 401_984
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  shapes = jax.tree.map(lambda leaf: leaf.shape, params)
  assert shapes['level_32']['conv_0'] == {'kernel': (3, 3, 3, 32), 'bias': (32,)}
  assert shapes['level_32']['conv_7'] == {'kernel': (3, 3, 32, 64), 'bias': (64,)}
  assert shapes['level_64'] == {
    'conv_0': {'kernel': (2, 2, 64, 128), 'bias': (128,)},
    'conv_1': {'kernel': (1, 1, 128, 64), 'bias': (64,)},
  }


@pytest.mark.parametrize('init', ['uniform', 'he'])
def test_initial_parameters_follow_from_the_fan_in(init):
  config = default.get_config()
  # 3 x 3 x 3 -> 16, 15 x 15 x 16 -> 32; 2 x 2 x 32 -> 64, 1 x 1 x 64 -> 32.
  config.encoder.update(depth=2, width=0.5, embed_dim=32, init=init)
  params = jit(lambda: init_encoder(config))()
  fans = {
    ('level_32', 'conv_0'): 27,
    ('level_32', 'conv_1'): 3600,
    ('level_64', 'conv_0'): 128,
    ('level_64', 'conv_1'): 64,
  }
  for (level, conv), fan_in in fans.items():
    kernel, bias = (np.asarray(params[level][conv][name]) for name in ('kernel', 'bias'))
    if init == 'uniform':
      variance, bound, kurtosis = 1 / (3 * fan_in), fan_in**-0.5, 1.8
      assert 0 < np.abs(bias).max() <= bound
      assert np.abs(kernel).max() <= bound
    else:
      # He et al. 2015, eq. 15, for a leaky ReLU of slope .1.
      variance, kurtosis = 2 / (1.01 * fan_in), 3
      assert not bias.any()
      assert np.abs(kernel).max() > 2.5 * math.sqrt(variance)
    # The moments within five of their standard errors.
    error = 5 / math.sqrt(kernel.size)
    assert kernel.mean() == pytest.approx(0, abs=error * math.sqrt(variance))
    assert kernel.var() == pytest.approx(variance, rel=error * math.sqrt(kurtosis - 1))


def test_the_authors_encoder_begins_as_in_older_runs():
  """By what the first version drew: a run that resumes has the same weights."""
  params = init_encoder(default.get_config())
  drawn = [
    params['level_32']['conv_0']['kernel'][0, 0, 0, :2],
    params['level_32']['conv_7']['bias'][:2],
    params['level_64']['conv_1']['kernel'][0, 0, :2, 0],
  ]
  np.testing.assert_allclose(np.concatenate(drawn), FIRST_DRAWN, rtol=1e-6)


def test_agrees_with_a_float64_forward_pass():
  encoder, variables = make()
  patches = random_images((64, 64))
  expected = np.stack([hierarchical64(patch, variables['params']) for patch in patches])
  alone = jit(functools.partial(encoder.apply, method='embed_patches'))(variables, patches)
  np.testing.assert_allclose(alone, expected, atol=1e-5, rtol=0)
  dense = jit(lambda variables, x: encoder.apply(variables, x, {64: 16, 32: 32}))(
    variables, patches
  )
  np.testing.assert_allclose(dense[64][:, 0, 0], expected, atol=1e-5, rtol=0)
  corner = hierarchical64(patches[1, 32:, :32], variables['params'])
  np.testing.assert_allclose(dense[32][1, 1, 0], corner, atol=1e-5, rtol=0)


def test_three_levels_agree_with_a_float64_forward_pass():
  encoder, variables = make(width=0.25, depth=3, scales=(128,))
  patch = random_images((128, 128), count=1)
  expected = hierarchical64(patch[0], variables['params'], depth=3)
  found = jit(lambda variables, x: encoder.apply(variables, x, {128: 2}))(variables, patch)[128]
  np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('depth', [2, 3, 8, 15])
def test_dense_equals_patch_wise_at_any_depth(depth):
  encoder, variables = make(width=0.25, depth=depth, scales=(32,), embed_dim=16)
  check_dense(encoder, variables, random_images((97, 131)), {32: 4})


@pytest.mark.parametrize(
  'strides',
  [
    {128: 2, 64: 2, 32: 2},
    {128: 32, 64: 16, 32: 4},
    {128: 6, 64: 10, 32: 14},  # no stride divides another
    {32: 4, 128: 8, 64: 32},  # finer above than below, in another order
    {128: 64, 32: 48},  # a level between that nobody asked for
    {64: 12},
    {128: 10},
    {32: 34},  # gaps between the patches
  ],
  ids=str,
)
def test_dense_equals_patch_wise_at_every_stride(strides):
  encoder, variables = shared_encoder()
  check_dense(encoder, variables, random_images(IMAGE_SIZE), strides)


@functools.cache
def shared_encoder():
  return make(width=0.25, depth=4, embed_dim=16, scales=SCALES)


@pytest.mark.parametrize('strides', [{64: 8}, {64: 16}, {64: 24}], ids=str)
def test_non_hierarchical_encoder(strides):
  encoder, variables = make(**NON_HIERARCHICAL | {'width': 0.25, 'embed_dim': 16})
  images = random_images((97, 131))
  dense = check_dense(encoder, variables, images, strides)
  expected = base64(images[0, :64, :64], variables['params']['level_64'], 4, 3)
  np.testing.assert_allclose(dense[64][0, 0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('size', [(32, 32), (33, 32), (34, 71), (128, 128), (129, 130)])
def test_grids_hold_every_patch_and_no_more(size):
  encoder, variables = shared_encoder()
  strides = {k: 2 for k in SCALES if k <= min(size)}
  shapes = jax.eval_shape(lambda x: encoder.apply(variables, x, strides), random_images(size))
  expected = {
    k: (2, *((extent - k) // stride + 1 for extent in size), 16) for k, stride in strides.items()
  }
  assert {k: grid.shape for k, grid in shapes.items()} == expected


def test_every_scale_alone_equals_all_in_one_pass():
  encoder, variables = shared_encoder()
  images, strides = random_images(IMAGE_SIZE), {128: 8, 64: 16, 32: 4}
  together = jit(lambda x: encoder.apply(variables, x, strides))(images)
  for k, stride in strides.items():
    alone = jit(functools.partial(encoder.apply, variables, strides={k: stride}))(images)
    assert list(alone) == [k]
    np.testing.assert_allclose(alone[k], together[k], atol=1e-6, rtol=0)


@pytest.mark.parametrize(('depth', 'possible'), [(1, '2 to 15'), (16, '2 to 15')])
def test_depth_out_of_range_names_the_possible_ones(depth, possible):
  with pytest.raises(UserError, match=rf'depth={depth} .* depths from {possible} can'):
    make(depth=depth)


@pytest.mark.parametrize('stride', [3, 0, -2, 1])
def test_stride_off_the_native_grid_is_refused(stride):
  encoder, variables = shared_encoder()
  with pytest.raises(UserError, match=rf'stride of {stride} at K=64 .* native stride 2'):
    encoder.apply(variables, random_images(IMAGE_SIZE), {64: stride, 32: 4})


def test_stride_off_the_coarser_grid_of_the_non_hierarchical_encoder_is_refused():
  encoder, variables = make(**NON_HIERARCHICAL | {'width': 0.1})
  with pytest.raises(UserError, match=r'stride of 4 at K=64 .* native stride 8'):
    encoder.apply(variables, random_images((64, 64)), {64: 4})


@pytest.mark.parametrize('size', [(63, 80), (80, 63), (31, 31), (2, 2)])
def test_image_smaller_than_a_patch_is_refused(size):
  encoder, variables = shared_encoder()
  with pytest.raises(UserError, match=rf'{min(size)} pixels cannot hold a (64|32)-pixel patch'):
    jax.eval_shape(lambda x: encoder.apply(variables, x, {64: 2, 32: 2}), random_images(size))


def test_computing_in_bfloat16_takes_and_gives_float32():
  encoder, variables = make(width=0.1, depth=4, scales=(64, 32))
  images = random_images((66, 64))
  halved = Encoder(encoder.architecture, jnp.bfloat16)
  assert {leaf.dtype for leaf in jax.tree.leaves(parameter_shapes(halved))} == {np.dtype('float32')}

  @jit
  def embed(variables, images):
    strides = {64: 2, 32: 8}
    return encoder.apply(variables, images, strides), halved.apply(variables, images, strides)

  exact, found = embed(variables, images)
  for k, grid in found.items():
    assert grid.dtype == jnp.float32
    # A significand of eight bits: other numbers, off by a few hundredths.
    assert 1e-4 < np.abs(grid - exact[k]).max() < 0.1


def classify(train_last_layer=False, dim=16, batch=5):
  """A classifier, random parameters of the shapes that it asks for, and pairs of embeddings."""
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(2, batch, dim)).astype(np.float32)
  classifier = PositionClassifier(train_last_layer)
  shapes = jax.eval_shape(classifier.init, jax.random.key(0), first, second)
  variables = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
  return classifier, variables, first, second


@pytest.mark.parametrize('train_last_layer', [False, True])
def test_classifier_agrees_with_float64(train_last_layer):
  classifier, variables, first, second = classify(train_last_layer)
  params = {name: np.asarray(value, np.float64) for name, value in variables['params'].items()}
  assert {name: value.shape for name, value in params.items()} == {
    'dense_0_kernel': (16, 128),
    'dense_0_bias': (128,),
    'dense_1_kernel': (128, 128),
    'dense_1_bias': (128,),
    'last_kernel': (128, 8),
    'last_bias': (8,),
  }
  x = first.astype(np.float64) - second
  for name in ('dense_0', 'dense_1'):
    x = leaky64(x @ params[f'{name}_kernel'] + params[f'{name}_bias'])
  kernel = params['last_kernel']
  if not train_last_layer:
    # Each hidden unit's eight weights get the length 1.
    kernel = kernel / np.sqrt((kernel**2).sum(axis=1, keepdims=True))
  logits = jit(classifier.apply)(variables, first, second)
  assert logits.shape == (5, 8)
  np.testing.assert_allclose(logits, x @ kernel + params['last_bias'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('train_last_layer', [False, True])
def test_only_a_trained_last_layer_learns(train_last_layer):
  classifier, variables, first, second = classify(train_last_layer)

  def loss(variables):
    return jnp.sum(classifier.apply(variables, first, second) ** 2)

  gradient = jit(jax.grad(loss))(variables)['params']
  assert np.any(gradient.pop('last_kernel')) == train_last_layer
  assert all(np.any(value) for value in gradient.values())
