"""Pairs of points on the maps of crops: where they lie, and which pixels are behind them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from patch_svdd_jax import config_rules
from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.encoder import Encoder
from patch_svdd_jax.system.batching import pad_images
from patch_svdd_jax.system.sharding import REPLICATED, SHARDED, place
from patch_svdd_jax.training import crops, objective, sampling, windows
from tests.detection.test_detector import random_params
from tests.support.draws import NEIGHBOURS, check_uniform
from tests.support.runs import COUNT, IMAGE_SIZE, IMAGES, MEAN, mesh_of, tiny_config
from tests.training.test_windows import jit

SCALES, NATIVE, SIDE = (16, 8), 2, 32
CROPS, PAIRS = 400, 4


def crops_config(noise=0.0, **settings):
  config = tiny_config(pairs='crops', crops=4, batch_size=4 * PAIRS, crop_size=SIDE, **settings)
  config.train.augment.update(rgb_shift=noise, pixel_noise=noise)
  return config


def make_sampler(config, crop=windows.crop):
  arch = architecture.from_config(config.encoder)
  return crops.make_sampler(arch, config.train, COUNT, crop)


def keys(count=CROPS, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def coded_images():
  """Each pixel says where it is: row, column, image."""
  codes = np.indices((COUNT, *IMAGE_SIZE))
  return np.stack([codes[1], codes[2], codes[0]], axis=-1).astype(np.uint8)


def no_mean():
  return np.zeros((1, 1, 3), np.float32)


@functools.cache
def coded_views():
  return jax.device_get(jit(make_sampler(crops_config()))(keys(), coded_images(), no_mean()))


def corners(views):
  """Of each view its corner and its image."""
  codes = np.rint(255 * np.asarray(views[:, 0, 0])).astype(int)
  return codes[:, :2], codes[:, 2]


def windows_behind(views, points, size):
  """The pixels behind points i32[C, P, 2]: [C * P, size, size, 3]."""
  return np.stack(
    [
      view[row : row + size, column : column + size]
      for view, of_view in zip(views, NATIVE * points, strict=True)
      for row, column in of_view
    ]
  )


def test_views_are_slices_of_the_images_a_shift_apart():
  views = coded_views()
  (first, number), (second, other) = corners(views.first), corners(views.second)
  np.testing.assert_array_equal(number, other)
  check_uniform(number, COUNT)
  for view, corner in ((views.first, first), (views.second, second)):
    assert view.shape == (CROPS, SIDE, SIDE, 3)
    expected = [
      coded_images()[n, row : row + SIDE, column : column + SIDE] / 255
      for n, (row, column) in zip(number, corner, strict=True)
    ]
    np.testing.assert_allclose(view, np.stack(expected), atol=1e-7)
  shift = second - first
  check_uniform(3 * (shift[:, 0] + 1) + shift[:, 1] + 1 - (shift @ (3, 1) > 0), 8)
  assert shift.any(axis=1).all()
  for axis in range(2):
    # Every corner of which the other view lies inside.
    last = IMAGE_SIZE[axis] - SIDE
    assert {0, last} <= set(first[:, axis])
    check_uniform(first[shift[:, axis] == 0, axis], last + 1)


@pytest.mark.parametrize('scale', SCALES)
def test_points_lie_on_the_map_and_positions_at_their_offset(scale):
  points = coded_views().points[scale]
  side = (SIDE - scale) // NATIVE + 1
  for name in ('first', 'second', 'anchor'):
    assert getattr(points, name).shape == (CROPS, PAIRS, 2)
    assert getattr(points, name).min() == 0
    assert getattr(points, name).max() == side - 1
  for axis in range(2):
    check_uniform(points.anchor[..., axis], side)
  check_uniform(points.positions, 8)
  offset, direction = NATIVE * (points.second - points.first), NEIGHBOURS[points.positions]
  np.testing.assert_array_equal(np.sign(offset), direction)
  distances = [d for d in range(3 * scale // 4, scale) if d % NATIVE == 0]
  assert set(np.abs(offset[direction != 0])) == set(distances)
  if scale == 16:
    check_uniform((np.abs(offset[direction != 0]) - distances[0]) // NATIVE, 2)  # 12 and 14
  # First points are drawn evenly among those whose neighbour is on the map.
  up = points.first[..., 0][offset[..., 0] == -distances[-1]]
  least = distances[-1] // NATIVE
  check_uniform(up - least, side - least)


@pytest.mark.parametrize('scale', SCALES)
def test_in_the_image_a_pair_lies_apart_as_its_points_and_the_views_shift(scale):
  """What pairs are about: the pixels, read out of the views, of which each says where it is."""
  views = coded_views()
  points = views.points[scale]
  seen = {
    name: np.rint(255 * windows_behind(view, at, scale)[:, 0, 0]).astype(int)[:, :2]
    for name, view, at in (
      ('first', views.first, points.first),
      ('second', views.second, points.second),
      ('anchor', views.first, points.anchor),
      ('neighbour', views.second, points.anchor),
    )
  }
  shift = np.repeat(corners(views.second)[0] - corners(views.first)[0], PAIRS, axis=0)
  np.testing.assert_array_equal(seen['neighbour'] - seen['anchor'], shift)
  offset = seen['second'] - seen['first']
  np.testing.assert_array_equal(
    offset - shift, NATIVE * (points.second - points.first).reshape(-1, 2)
  )
  direction = NEIGHBOURS[points.positions.reshape(-1)]
  np.testing.assert_array_equal(np.sign(offset)[direction != 0], direction[direction != 0])
  assert (np.abs(offset[direction == 0]) <= 1).all()


def test_crops_and_their_pairs_are_drawn_apart():
  views = coded_views()
  first = views.points[16].first.reshape(-1, 2), views.points[8].first.reshape(-1, 2)
  for one, other in ((first[0], first[1]), (first[0], views.points[16].anchor.reshape(-1, 2))):
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.1
  again = jit(make_sampler(crops_config()))(keys(seed=1), coded_images(), no_mean())
  assert not np.array_equal(again.points[16].first, views.points[16].first)


@pytest.mark.parametrize(
  ('images_lie', 'devices'), [('replicated', 2), ('replicated', 4), ('sharded', 2), ('sharded', 4)]
)
def test_devices_change_no_pair(images_lie, devices):
  spec, crop = windows.PLACEMENTS[images_lie]
  mesh, images = mesh_of(devices), coded_images()
  sample = jax.shard_map(
    make_sampler(crops_config(), crop),
    mesh=mesh,
    in_specs=(SHARDED, spec, REPLICATED),
    out_specs=SHARDED,
    check_vma=False,
  )
  padded = pad_images(images, -(-COUNT // devices) * devices) if spec == SHARDED else images
  found = jit(sample)(keys(), place(padded, mesh, spec), no_mean())
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(coded_views()), strict=True):
    assert len(one.addressable_shards) == devices
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_noise_differs_between_the_views_and_is_that_of_position_pairs():
  images = np.full((COUNT, *IMAGE_SIZE, 3), 100, np.uint8)
  views = jit(make_sampler(crops_config(noise=0.03)))(keys(64), images, no_mean())
  first, second = (np.asarray(view, np.float64) - 100 / 255 for view in (views.first, views.second))
  for change in (first, second):
    assert change.std() == pytest.approx(0.03 * np.sqrt(2), rel=0.1)
    assert change.mean(axis=(1, 2)).std() == pytest.approx(0.03, rel=0.2)
  assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2
  residual = [change - change.mean(axis=(1, 2), keepdims=True) for change in (first, second)]
  assert residual[0].std() == pytest.approx(0.03, rel=0.02)
  assert abs(np.corrcoef(residual[0].ravel(), residual[1].ravel())[0, 1]) < 0.02


def test_an_embedding_is_that_of_the_patch_behind_its_point():
  """Each is embedded once more, by itself, out of the pixels of its view."""
  config = crops_config(noise=0.02)
  params = random_params(config)
  drawn = keys(3)
  views, found = jax.device_get(
    jit(
      lambda *given: (
        make_sampler(config)(*given),
        objective.embed_crop_pairs(config, COUNT, windows.crop)(params, *given),
      )
    )(drawn, IMAGES, MEAN)
  )
  encoder = Encoder(architecture.from_config(config.encoder))
  embed = jit(lambda x: encoder.apply({'params': params}, x, method='embed_patches'))
  assert found.keys() == set(SCALES)
  for scale, pairs in found.items():
    points = views.points[scale]
    np.testing.assert_array_equal(pairs.positions, points.positions.reshape(-1))
    for name, view, at in (
      ('first', views.first, points.first),
      ('second', views.second, points.second),
      ('anchor', views.first, points.anchor),
      ('neighbour', views.second, points.anchor),
    ):
      alone = np.asarray(embed(jnp.asarray(windows_behind(view, at, scale))))
      assert alone.std(axis=0).mean() > 0.01
      np.testing.assert_allclose(getattr(pairs, name), alone, atol=1e-5, err_msg=f'{scale} {name}')


def test_the_smallest_crops_and_images_that_pass_do_hold_pairs():
  config = crops_config(image_size=(32, 32))
  config.train.crop_size = 31
  config_rules.validate(config)
  side = (31 - 16) // NATIVE + 1
  points = jit(lambda key: crops.draw_points(key, side, *crops.offsets(16, NATIVE), 400))(keys()[0])
  for at in (points.first, points.second, points.anchor):
    assert (at.min(), at.max()) == (0, side - 1)
  # Two crops of 31 in 32 pixels: each view has its corners at 0 or 1.
  uniform = np.random.default_rng(0).random((400, 3), np.float32)
  shift = np.asarray(jax.vmap(lambda u: sampling.neighbour_shift(u, 1))(uniform[:, 2]))
  first = np.asarray(jax.vmap(sampling.first_of_pair, (0, 0, None))(uniform[:, :2], shift, 1))
  assert set(first.ravel()) == set((first + shift).ravel()) == {0, 1}
