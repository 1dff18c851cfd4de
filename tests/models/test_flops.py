"""Counted multiply-adds against published ones and the compiler's."""

import jax
import jax.numpy as jnp
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.models import architecture, embedding, encoder, features, flops, geometry
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.encoder import Encoder


def macs(layers):
  return sum(layer.macs for layer in layers)


def test_the_authors_encoder_patch_by_patch():
  # 57 x 57 patches at stride 4 and 13 x 13 at stride 16 take 111.3 GMAC, each by itself.
  arch = architecture.from_config(default.get_config().encoder)
  image = (256, 256)
  total = sum(
    geometry.patch_count(image, k, stride) * macs(flops.patch_layers(arch, k))
    for k, stride in ((64, 16), (32, 4))
  )
  assert total == pytest.approx(111.3e9, rel=1e-3)
  # The first layer of a patch, by hand: 15 x 15 outputs of 3 x 3 x 3 to 32.
  assert next(flops.patch_layers(arch, 32)) == (15 * 15 * 27 * 32, True)


def small_config():
  config = default.get_config()
  config.encoder.update(receptive_field=16, scales=(32, 16), depth=3, width=0.25, embed_dim=8)
  config.train.update(batch_size=12, crops=2, crop_size=64)
  return config


def compiled_macs(function, *shapes):
  """The compiler's count for a program without loops; it adds those of activations."""
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function).lower(*arguments).cost_analysis()['flops'] / 2


@pytest.mark.parametrize('strides', [{32: 8, 16: 4}, {16: 2}, {32: 4}])
def test_a_pass_over_an_image_agrees_with_the_compiler(strides):
  arch = architecture.from_config(small_config().encoder)
  module = Encoder(arch)
  params = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), method='initialize')
  found = compiled_macs(lambda image: module.apply(params, image, strides), (1, 60, 77, 3))
  assert macs(flops.image_layers(arch, (60, 77), strides)) == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize('names', [('hidden',), ('thumbnail',), ('thumbnail', 'embedding')])
def test_features_of_an_image_agree_with_the_compiler(names):
  config = small_config()
  config.data.image_size = (60, 77)
  config.score.update(features=names, whiten=True, strides=(8, 4))
  arch = architecture.from_config(config.encoder)
  params = encoder.init_encoder(config) | features.empty(config)
  encode = embedding.make_encode(
    arch, strides_of(config), features=features.from_config(config.score)
  )
  mean = jnp.zeros((1, 1, 3))
  found = compiled_macs(lambda images: encode(params, mean, images), (1, 60, 77, 3))
  assert flops.image_flops(config) / 2 == pytest.approx(found, rel=0.1)
  assert flops.image_flops(config) != flops.embedding_flops(config)


def test_a_step_learns_from_all_its_patches():
  config = small_config()
  arch = architecture.from_config(config.encoder)
  forward = 4 * 12 * sum(macs(flops.patch_layers(arch, k)) for k in (32, 16))
  first = 4 * 12 * (4 + 1) * next(flops.patch_layers(arch, 16)).macs
  assert flops.step_flops(config) == 2 * (3 * forward - first)


def test_a_step_learns_from_all_its_crops():
  config = small_config()
  config.train.pairs = 'crops'
  arch = architecture.from_config(config.encoder)
  layers = list(flops.image_layers(arch, (64, 64), {32: 2, 16: 2}))
  expected = 2 * 2 * (3 * macs(layers) - layers[0].macs) * 2
  assert flops.step_flops(config) == expected
  # However many pairs are drawn from them.
  config.train.batch_size = 200
  assert flops.step_flops(config) == expected
