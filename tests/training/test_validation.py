"""Statistics of held-out images against float64, the same every time, and nothing recompiled."""

import contextlib

import jax
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.encoder import Encoder, PositionClassifier
from patch_svdd_jax.system import sharding
from patch_svdd_jax.training import sampling, train_state, validation

SIZE = (40, 48)
STRIDES = {32: 8, 16: 4}


def tiny_config(**train):
  config = default.get_config()
  config.data.image_size = SIZE
  config.encoder.update(receptive_field=16, scales=(32, 16), depth=3, width=0.25, embed_dim=8)
  config.train.update({'svdd_weight': 0.1, 'batch_size': 4} | train)
  config.checkpoint.validation_images = 2
  return config


@pytest.fixture(scope='module')
def images():
  """Five to train on and three held out."""
  pixels = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3), dtype=np.uint8)
  return pixels[:5], pixels[5:]


@pytest.fixture(scope='module')
def mean(images):
  return images[0].mean(axis=0, dtype=np.float32)


@pytest.fixture(scope='module')
def params():
  return train_state.init_state(tiny_config()).params


@pytest.fixture(scope='module')
def validate(images, mean):
  return validation.make_validation(tiny_config(), STRIDES, *images, mean)


@pytest.fixture(scope='module')
def on_mesh(params):
  """The parameters as training has them."""
  return sharding.place(params, sharding.all_devices())


@pytest.fixture(scope='module')
def found(validate, on_mesh):
  return validate(on_mesh)


def test_what_there_is(found):
  kinds = {
    *('position_loss', 'position_accuracy', 'neighbour_loss', 'radius'),
    *(f'{unit}_{which}' for unit in ('distance', 'relative') for which in ('median', '99', 'max')),
  }
  assert found.keys() == {'loss'} | {f'{kind}/{k}' for kind in kinds for k in ('k32', 'k16')}
  assert all(type(value) is float for value in found.values())


def test_distances_agree_with_float64(found, images, mean, params):
  """Of the images in the middle of two halves: of five and of three."""
  arch = architecture.from_config(tiny_config().encoder)
  variables = {'params': params['encoder']}
  embed = jax.jit(lambda pixels: Encoder(arch).apply(variables, pixels, STRIDES))

  def rows(pixels):
    grids = embed((pixels.astype(np.float32) - mean[None]) / 255)
    return {k: np.float64(grid).reshape(-1, 8) for k, grid in grids.items()}

  bank, queries = rows(images[0][[1, 3]]), rows(images[1][[0, 2]])
  for k in STRIDES:
    apart = np.linalg.norm(queries[k][:, None] - bank[k][None], axis=-1).min(axis=1)
    radius = np.sqrt(((bank[k] - bank[k].mean(axis=0)) ** 2).sum(axis=1).mean())
    assert found[f'radius/k{k}'] == pytest.approx(radius, rel=1e-4)
    for name, share in (('median', 0.5), ('99', 0.99), ('max', 1.0)):
      expected = np.quantile(apart, share)
      assert found[f'distance_{name}/k{k}'] == pytest.approx(expected, rel=1e-4)
      assert found[f'relative_{name}/k{k}'] == pytest.approx(expected / radius, rel=1e-4)


def test_pairs_agree_with_float64(found, images, mean, params):
  config = tiny_config()
  encoder, classifier = Encoder(architecture.from_config(config.encoder)), PositionClassifier()
  held_out = images[1][[0, 2]]
  keys = jax.random.split(jax.random.key(0), validation.PAIRS)
  total = 0.0
  for k in STRIDES:
    sample = sampling.make_sampler(k, 'clip', config.train.augment, 2)

    @jax.jit
    def network(keys, k=k, sample=sample):
      pairs = sample(jax.vmap(jax.random.fold_in, (0, None))(keys, k), held_out, mean)

      def embed(patches):
        return encoder.apply({'params': params['encoder']}, patches, method='embed_patches')

      head = {'params': params['classifiers'][f'k{k}']}
      anchor, neighbour = embed(pairs.neighbour_first), embed(pairs.neighbour_second)
      first, second = embed(pairs.position_first), embed(pairs.position_second)
      return classifier.apply(head, first, second), pairs.positions, anchor, neighbour

    logits, positions, anchor, neighbour = (np.asarray(value) for value in network(keys))
    logits = logits.astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), positions]
    apart = np.linalg.norm(anchor.astype(np.float64) - neighbour, axis=1)
    assert found[f'position_accuracy/k{k}'] == np.mean(logits.argmax(axis=1) == positions)
    assert found[f'position_loss/k{k}'] == pytest.approx(losses.mean(), rel=1e-5)
    assert found[f'neighbour_loss/k{k}'] == pytest.approx(apart.mean(), rel=1e-5)
    total += losses.mean() + 0.1 * apart.mean()
  assert found['loss'] == pytest.approx(total, rel=1e-5)


@contextlib.contextmanager
def compilations():
  """A list that grows with every program that XLA compiles or loads."""
  compiled = []

  def note(event, seconds, **about):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(about)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    yield compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


def test_again_it_is_the_same_and_nothing_is_compiled_or_moved(validate, found, params, on_mesh):
  other = jax.tree.map(lambda leaf: np.asarray(leaf) * 2, params)
  moved = sharding.place(other, sharding.all_devices())
  with compilations() as compiled, jax.transfer_guard_host_to_device('disallow'):
    assert validate(on_mesh) == found
    assert validate(moved) != found
  assert compiled == []


def test_the_seed_and_the_way_pairs_are_made_change_nothing(images, mean, on_mesh, found):
  config = tiny_config(pairs='crops', crops=2, crop_size=40, contrast=1.0)
  config.seed = 3
  again = validation.make_validation(config, STRIDES, *images, mean)(on_mesh)
  assert again == pytest.approx(found, rel=1e-6)


def test_without_held_out_images_there_is_nothing(images, mean):
  validate = validation.make_validation(tiny_config(), STRIDES, images[0], images[1][:0], mean)
  assert validate(None) == {}


def test_embeddings_that_are_all_the_same():
  found = validation.distance_statistics('k16', np.zeros(7, np.float32), 0.0)
  assert found['distance_max/k16'] == found['radius/k16'] == 0
  assert found['relative_median/k16'] == np.inf


@pytest.mark.parametrize('offset', [0.0, 0.95])
@pytest.mark.parametrize('spread', [1.0, 4e-4])
def test_nearest_distances(offset, spread):
  """Also of embeddings that lie close together, far from the origin."""
  rng = np.random.default_rng(0)
  rows = np.float32(offset + spread * rng.normal(size=(301, 6)))
  queries = np.float32(offset + spread * rng.normal(size=(validation.QUERIES_TOGETHER + 9, 6)))
  centre = rows.mean(axis=0)
  found = jax.jit(validation.nearest_distances)(queries - centre, rows - centre)
  apart = np.linalg.norm(np.float64(queries)[:, None] - np.float64(rows)[None], axis=-1)
  np.testing.assert_allclose(found, apart.min(axis=1), rtol=1e-5, atol=2e-7 * offset)


@pytest.mark.parametrize(('side', 'count'), [(256, 16), (1024, 16), (2048, 4), (8192, 1)])
def test_of_large_images_fewer_are_looked_at(side, count):
  config = default.get_config()
  assert validation.images_looked_at(config, {64: 16, 32: 4}, (side, side)) == count
