"""The embedding pass over four devices against one image at a time on one device."""

import functools
import itertools

import jax
import numpy as np
import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture, embedding
from patch_svdd_jax.models.encoder import Encoder
from patch_svdd_jax.system import batching
from patch_svdd_jax.system.sharding import replicate

SIZE = (41, 53)
STRIDES = {32: 8, 16: 4}
GRIDS = {32: (2, 3), 16: (7, 10)}
DIM = 6


@functools.cache
def encoder():
  """A small encoder of two levels and parameters large enough that its outputs differ."""
  config = default.get_config().encoder
  config.update(receptive_field=16, scales=(32, 16), depth=3, width=0.1, embed_dim=DIM)
  module = Encoder(architecture.from_config(config))
  init = functools.partial(module.init, method='initialize')
  shapes = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  rng = np.random.default_rng(0)

  def draw(leaf):
    deviation = np.sqrt(2 / np.prod(leaf.shape[:3])) if len(leaf.shape) == 4 else 0.1
    return rng.normal(0, deviation, leaf.shape).astype(np.float32)

  return module, jax.tree.map(draw, shapes)['params']


def inputs(count, mean='image'):
  rng = np.random.default_rng(count)
  images = rng.integers(0, 256, (count, *SIZE, 3), np.uint8)
  shape = (*SIZE, 3) if mean == 'image' else (1, 1, 3)
  return images, rng.uniform(0, 255, shape).astype(np.float32)


@functools.cache
def one_device():
  """Embeds one normalised image on one device."""
  module, params = encoder()
  return jax.jit(lambda image: module.apply({'params': params}, image[None], STRIDES))


def expected_rows(images, mean):
  """f32[N, patches, D] of each scale."""
  normalised = ((images.astype(np.float64) - mean) / 255).astype(np.float32)
  grids = [one_device()(image) for image in normalised]
  return {k: np.stack([np.asarray(grid[k]).reshape(-1, DIM) for grid in grids]) for k in STRIDES}


def embed(images, mean, batch_size, **kwargs):
  module, params = encoder()
  params, mean = replicate((params, mean))
  return embedding.embed(
    module.architecture, params, mean, images, STRIDES, batch_size=batch_size, **kwargs
  )


@pytest.mark.parametrize(
  ('count', 'batch_size', 'mean'),
  [
    (11, 2, 'image'),  # two batches a device, five images of padding
    (8, 8, 'channel'),  # no padding; the batch shrinks to a device's share
    (3, 2, 'image'),  # fewer images than devices
    (1, 1, 'channel'),
  ],
)
def test_devices_together_equal_one(count, batch_size, mean):
  assert jax.local_device_count() == 4
  images, mean = inputs(count, mean)
  found = embed(images, mean, batch_size)
  assert found.keys() == STRIDES.keys()
  for k, expected in expected_rows(images, mean).items():
    rows, images_found = found[k]
    patches = GRIDS[k][0] * GRIDS[k][1]
    assert images_found == count
    assert rows.shape == (4, rows.shape[1], patches, DIM)
    # In order: the n-th image is the n-th over all devices, and only the last ones are padding.
    in_order = np.asarray(rows).reshape(-1, patches, DIM)
    np.testing.assert_allclose(in_order[:count], expected, atol=1e-5, rtol=0)
    # Neighbouring images differ by far more than the tolerance.
    assert all(np.abs(a - b).max() > 0.05 for a, b in itertools.pairwise(expected))


def test_embeddings_stay_on_their_devices():
  found = embed(*inputs(7), batch_size=2)
  for rows, _ in found.values():
    shards = rows.addressable_shards
    assert [shard.device for shard in shards] == jax.local_devices()
    assert {shard.data.shape for shard in shards} == {(1, *rows.shape[1:])}


def test_no_more_padding_than_needed():
  for count, batch_size, share in [(7, 8, 2), (9, 2, 4), (17, 4, 8)]:
    images, mean = inputs(count)
    found = embed(images, mean, batch_size)
    shapes = {k: embeddings.rows.shape[:2] for k, embeddings in found.items()}
    assert shapes == dict.fromkeys(STRIDES, (4, share))


def test_progress_counts_the_batches():
  seen = []

  def progress(batches):
    for batch in batches:
      yield batch
      seen.append(batch)

  embed(*inputs(11), batch_size=2, progress=progress)
  assert seen == [0, 1]


def test_queries_are_embedded_in_their_grids():
  module, params = encoder()
  images, mean = inputs(8)
  embed_batch = embedding.make_embed_batch(module.architecture, STRIDES)
  found = embed_batch(*replicate((params, mean)), images.reshape(4, 2, *images.shape[1:]))
  for k, expected in expected_rows(images, mean).items():
    assert found[k].shape == (4, 2, *GRIDS[k], DIM)
    in_order = np.asarray(found[k]).reshape(expected.shape)
    np.testing.assert_allclose(in_order, expected, atol=1e-5, rtol=0)


def test_replicated_once_on_every_device():
  _, params = encoder()
  for leaf in jax.tree.leaves(replicate(params)):
    assert leaf.sharding.is_fully_replicated
    assert leaf.sharding.device_set == set(jax.local_devices())


def test_pad_images_puts_black_ones_behind():
  images, _ = inputs(3)
  padded = batching.pad_images(images, 5)
  np.testing.assert_array_equal(padded[:3], images)
  assert padded.shape == (5, *SIZE, 3)
  assert not padded[3:].any()


def test_images_smaller_than_a_patch_are_refused():
  images, mean = inputs(2)
  with pytest.raises(UserError, match='31 pixels cannot hold a 32-pixel patch'):
    embed(images[:, :31], mean[:31], batch_size=1)
