"""The vectors that the search is measured on."""

import jax
import numpy as np
import pytest

from benchmarks import vectors
from patch_svdd_jax.configs import default
from patch_svdd_jax.models import encoder


def test_gaussian_vectors_are_standard_normal_and_always_the_same():
  queries, rows = vectors.gaussian(50, 4000, 16)
  assert (queries.shape, rows.shape) == ((50, 16), (4000, 16))
  assert queries.dtype == rows.dtype == np.float32
  np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.1)
  np.testing.assert_allclose(np.cov(rows.T), np.eye(16), atol=0.1)
  assert not (queries == rows[:50]).any()
  for one, other in zip((queries, rows), vectors.gaussian(50, 4000, 16), strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def small(monkeypatch):
  """Images of 64 x 64 pixels, 81 patches each; a narrow encoder with random weights."""
  get_config = default.get_config

  def get_small_config():
    config = get_config()
    config.data.image_size = (64, 64)
    config.encoder.width = 0.25
    return config

  def init_encoder(config):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(config))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)

  init = encoder.init_encoder
  monkeypatch.setattr(default, 'get_config', get_small_config)
  monkeypatch.setattr(encoder, 'init_encoder', init_encoder)


@pytest.mark.usefixtures('small')
def test_embeddings_are_of_different_patches():
  batches = []

  def progress(numbers):
    batches.extend(numbers)
    return numbers

  queries, rows = vectors.embeddings(100, 500, 8, progress)
  assert (queries.shape, rows.shape) == ((100, 8), (500, 8))
  assert queries.dtype == rows.dtype == np.float32
  assert rows.flags.writeable
  assert batches == [0]
  assert np.isfinite(rows).all()
  both = np.concatenate([queries, rows])
  assert len(np.unique(both, axis=0)) == len(both)
  assert (rows.std(axis=0) > 0).all()
  np.testing.assert_allclose(rows.mean(axis=0) / rows.std(axis=0), 0, atol=1e-4)


def test_images_are_cut_from_their_strips_alone():
  rng = np.random.default_rng(0)
  strips = (np.full((512, 160), 10, np.uint8), np.full((512, 192), 20, np.uint8))
  images = vectors.random_images(rng, strips, 40, (24, 32))
  assert images.shape == (40, 24, 32, 3)
  assert set(np.unique(images)) == {10, 20}
  assert (images == images[:, :1, :1, :1]).all()


def test_images_differ():
  rng = np.random.default_rng(0)
  strip = rng.integers(0, 256, (512, 160), np.uint8)
  images = vectors.random_images(rng, (strip,), 20, (32, 32))
  assert len(np.unique(images, axis=0)) == 20
