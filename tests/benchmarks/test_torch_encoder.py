"""PyTorch's encoder with our parameters gives our embeddings, and its step learns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import torch_encoder
from patch_svdd_jax.configs import default
from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.encoder import Encoder, PositionClassifier

torch = pytest.importorskip('torch', exc_type=ImportError)
DIM = 16


def shape(**settings):
  config = default.get_config().encoder
  config.update({'width': 0.25, 'depth': 3, 'embed_dim': DIM, 'scales': (128, 64, 32)} | settings)
  return architecture.from_config(config)


@functools.cache
def drawn(architecture):
  """Our encoder, and parameters large enough that its outputs differ from patch to patch."""
  rng = np.random.default_rng(0)
  size = architecture.levels[-1]
  init = functools.partial(Encoder(architecture).init, method='initialize')
  shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, size, size, 3)))['params']

  def draw(leaf):
    bound = math.sqrt(6 / max(1, math.prod(leaf.shape[:-1]))) if len(leaf.shape) > 1 else 0.1
    return rng.uniform(-bound, bound, leaf.shape).astype(np.float32)

  return Encoder(architecture), jax.tree.map(draw, shapes)


def random_images(*shape):
  return np.random.default_rng(1).uniform(-0.5, 0.5, (*shape, 3)).astype(np.float32)


@pytest.mark.parametrize('strides', [{128: 32, 64: 16, 32: 4}, {64: 10, 32: 2}, {64: 12}], ids=str)
def test_dense_embeddings_are_ours(strides):
  encoder, params = drawn(shape())
  images = random_images(2, 139, 161)
  ours = jax.jit(lambda x: encoder.apply({'params': params}, x, strides))(images)
  found = torch_encoder.make_embed(shape(), strides, params)(images)
  assert found.keys() == ours.keys()
  for k, grid in ours.items():
    assert np.std(grid) > 0.01
    np.testing.assert_allclose(found[k], grid, atol=1e-5)


@pytest.mark.parametrize(
  'settings', [{}, {'strided_layers': 2, 'strided_kernel': 5, 'depth': 4, 'scales': (64,)}], ids=str
)
def test_patches_embeddings_are_ours(settings):
  built = shape(**settings)
  encoder, params = drawn(built)
  theirs = torch_encoder.make_encoder(built)
  torch_encoder.copy_params(params, theirs)
  for k in built.scales:
    patches = random_images(3, k, k)
    ours = encoder.apply({'params': params}, patches, method='embed_patches')
    with torch.no_grad():
      found = torch_encoder.embed_patches(built, theirs, torch.from_numpy(patches))
    np.testing.assert_allclose(found, ours, atol=1e-5)


def test_logits_are_ours():
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(2, 5, DIM)).astype(np.float32)
  ours = PositionClassifier()
  params = jax.eval_shape(ours.init, jax.random.key(0), first, second)['params']
  params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), params)
  theirs = torch_encoder.make_classifier(DIM)
  with torch.no_grad():
    for name, layer in theirs.items():
      layer.weight.copy_(torch.from_numpy(params[f'{name}_kernel'].T.copy()))
      layer.bias.copy_(torch.from_numpy(params[f'{name}_bias']))
    found = torch_encoder.classify(theirs, torch.from_numpy(first), torch.from_numpy(second))
  np.testing.assert_allclose(
    found, ours.apply({'params': params}, first, second), rtol=1e-5, atol=1e-5
  )


def test_steps_on_one_batch_lower_its_loss():
  torch.manual_seed(0)
  built = shape(scales=(64, 32))
  step = torch_encoder.make_step(built, svdd_weight=1.0, learning_rate=1e-2)
  positions = np.arange(8)
  batch = {k: (random_images(4 * 8, k, k), positions) for k in built.scales}
  first = step(batch)
  # Chance is log 8 at each scale; embeddings with initial weights hardly differ.
  assert first == pytest.approx(2 * math.log(8), abs=0.5)
  losses = [step(batch) for _ in range(10)]
  assert losses[-1] < 0.9 * first
