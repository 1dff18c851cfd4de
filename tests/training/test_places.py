"""Pairs in regions of interest: both patches of every pair count, and all pairs are drawn."""

import functools
import itertools

import jax
import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture
from patch_svdd_jax.system.sharding import place
from patch_svdd_jax.training import (
  crops,
  loop,
  places,
  population,
  sampling,
  train_state,
  train_step,
)
from tests.support.draws import check_uniform
from tests.support.runs import COUNT, IMAGE_SIZE, IMAGES, MEAN, mesh_of, tiny_config
from tests.training.test_windows import augmentation, jit

PATCH, SHARE = 8, 0.5
KEYS = 3000


def masks():
  """Regions of an image, bool[H, W], by name."""
  rows, columns = np.ogrid[: IMAGE_SIZE[0], : IMAGE_SIZE[1]]
  radius = np.hypot(rows - IMAGE_SIZE[0] / 2, columns - IMAGE_SIZE[1] / 2)
  islands = (rows < 16) & (columns < 20) | (rows >= 25) & (columns >= 30)
  return {
    'all': np.ones(IMAGE_SIZE, bool),
    'stripe': np.broadcast_to((rows >= 10) & (rows < 18), IMAGE_SIZE),
    'ring': (radius > 12) & (radius < 18),
    'islands': islands,
    'corner': (rows >= 20) & (columns < 30),
  }


def regions_of(name):
  if name == 'own':
    return np.stack([*masks().values()][:COUNT])
  return np.broadcast_to(masks()[name], (COUNT, *IMAGE_SIZE))


def config_of(**train):
  config = tiny_config(**train)
  config.data.region_share = SHARE
  return config


def counts(region, corner, patch):
  """Whether a patch has half its pixels in a region."""
  top, left = corner
  window = region[top : top + patch, left : left + patch]
  assert window.shape == (patch, patch), 'it leaves the image'
  return 2 * window.sum() >= patch * patch


def coded(images, indices, corners, side):
  """Windows whose first pixel says where they are."""
  del images
  codes = jax.numpy.concatenate([corners, indices[:, None]], axis=1).astype(np.uint8)
  return jax.numpy.broadcast_to(codes[:, None, None], (len(codes), side, side, 3))


def decoded(patches):
  """Corners i64[B, 2] and images i64[B] of coded patches."""
  codes = np.rint(255 * np.asarray(patches[:, 0, 0])).astype(int)
  return codes[:, :2], codes[:, 2]


@functools.cache
def drawn(name, mode='valid', patch=PATCH):
  """What a sampler draws in a region, pair by pair."""
  table = places.make(config_of(position_pairs=mode, scales=(patch,)), regions_of(name))[patch]
  sample = jit(sampling.make_sampler(patch, mode, augmentation(), COUNT, coded))
  keys = jax.random.split(jax.random.key(1), KEYS)
  return jax.device_get(
    sample(keys, np.zeros((COUNT, *IMAGE_SIZE, 3), np.uint8), np.zeros((1, 1, 3)), table)
  )


def follows(first, second, position, patch, mode):
  """Whether a second patch is the neighbour that the position says, or was moved inside."""
  for sign, start, end, extent in zip(
    sampling.DIRECTIONS[position], first, second, IMAGE_SIZE, strict=True
  ):
    offsets = np.arange(3 * patch // 4, patch) * sign
    ends = start + offsets
    if mode == 'clip':
      ends = np.clip(ends, 0, extent - patch)
    if end not in ends:
      return False
  return True


@pytest.mark.parametrize('mode', ['clip', 'valid'])
@pytest.mark.parametrize('name', ['all', 'stripe', 'ring', 'islands', 'own'])
def test_both_patches_of_every_pair_count(name, mode):
  pairs, regions = drawn(name, mode), regions_of(name)
  for first, second in (
    (pairs.position_first, pairs.position_second),
    (pairs.neighbour_first, pairs.neighbour_second),
  ):
    (one, images), (other, same) = decoded(first), decoded(second)
    np.testing.assert_array_equal(images, same)
    assert set(images.tolist()) == set(range(COUNT))
    for image, corner, near in zip(images, one, other, strict=True):
      assert counts(regions[image], corner, PATCH)
      assert counts(regions[image], near, PATCH)
  (one, _), (other, _) = decoded(pairs.position_first), decoded(pairs.position_second)
  assert all(follows(*each, PATCH, mode) for each in zip(one, other, pairs.positions, strict=True))
  shift = decoded(pairs.neighbour_second)[0] - decoded(pairs.neighbour_first)[0]
  assert (abs(shift) <= sampling.neighbour_reach(PATCH)).all()
  assert shift.any(axis=1).all()


def all_pairs(region, patch):
  """All position pairs of a region by position, each both corners, by trying every one."""
  found = {position: set() for position in range(8)}
  corners = itertools.product(*(range(extent - patch + 1) for extent in region.shape))
  counted = {corner for corner in corners if counts(region, corner, patch)}
  far = range(3 * patch // 4, patch)
  for position, signs in enumerate(sampling.DIRECTIONS):
    steps = [[sign * step for step in far] if sign else [0] for sign in signs]
    for (row, column), down, right in itertools.product(counted, *steps):
      if (row + down, column + right) in counted:
        found[position].add(((row, column), (row + down, column + right)))
  return {position: pairs for position, pairs in found.items() if pairs}


@pytest.mark.parametrize('name', ['stripe', 'ring', 'islands'])
def test_tables_hold_pairs_evenly_out_of_all_there_are(name, monkeypatch):
  monkeypatch.setattr(places, 'ROWS', 2000)
  expected = all_pairs(masks()[name], PATCH)
  table = places.make(config_of(position_pairs='valid', scales=(PATCH,)), regions_of(name))
  table = table[PATCH].positions
  assert table.kinds.tolist() == [*expected]
  for kind, start, count in zip(table.kinds, table.starts, table.counts, strict=True):
    pairs = [tuple(map(tuple, pair)) for pair in table.corners[start : start + count].tolist()]
    assert set(pairs) <= expected[kind]
    assert len(set(pairs)) == len(pairs) == min(2000, len(expected[kind]))
  assert sum(table.counts) == len(table.corners)


@pytest.mark.parametrize('name', ['stripe', 'ring', 'islands'])
def test_positions_that_fit_are_equally_frequent(name):
  expected = [*all_pairs(masks()[name], PATCH)]
  positions = np.asarray(drawn(name).positions)
  check_uniform(np.searchsorted(expected, positions), len(expected))
  assert set(positions.tolist()) == set(expected)


def test_first_patches_are_uniform_over_a_rectangle():
  region = np.zeros(IMAGE_SIZE, bool)
  region[5:25, 7:39] = True
  config = config_of(position_pairs='valid', scales=(PATCH,))
  config.data.region_share = 1.0
  table = places.make(config, np.broadcast_to(region, (COUNT, *IMAGE_SIZE)))[PATCH]
  first = table.neighbours.corners[:, 0].astype(int)
  # Corners of rows 5 to 17 and columns 7 to 31; those at the edge have fewer neighbours.
  inner = ((first > [5, 7]) & (first < [17, 31])).all(axis=1)
  cells = (first[inner] - [6, 8]) @ [23, 1]
  assert np.bincount(cells, minlength=11 * 23).tolist() == [8] * (11 * 23)
  sample = jit(sampling.make_sampler(PATCH, 'valid', augmentation(), COUNT, coded))
  keys = jax.random.split(jax.random.key(5), 10 * KEYS)
  pairs = sample(keys, np.zeros((COUNT, *IMAGE_SIZE, 3), np.uint8), np.zeros((1, 1, 3)), table)
  first, images = decoded(pairs.neighbour_first)
  inner = ((first > [5, 7]) & (first < [17, 31])).all(axis=1)
  check_uniform((first[inner] - [6, 8]) @ [23, 1], 11 * 23)
  check_uniform(images, COUNT)


def test_a_pair_is_drawn_from_its_key_alone():
  table = places.make(config_of(scales=(PATCH,)), regions_of('ring'))[PATCH]
  sample = jit(sampling.make_sampler(PATCH, 'clip', augmentation(), COUNT, coded))
  keys = jax.random.split(jax.random.key(1), 20)
  given = np.zeros((COUNT, *IMAGE_SIZE, 3), np.uint8), np.zeros((1, 1, 3))
  whole, part = sample(keys, *given, table), sample(keys[7:12], *given, table)
  for one, other in zip(whole, part, strict=True):
    np.testing.assert_array_equal(one[7:12], other)


def test_a_region_too_small_for_pairs_is_refused():
  region = np.zeros((COUNT, *IMAGE_SIZE), bool)
  region[:, :8, :9] = True
  with pytest.raises(UserError, match='no two patches of K=8 that lie side by side have 50 %') as e:
    places.make(config_of(scales=(8,), position_pairs='valid'), region & (np.arange(48) < 4))
  assert 'lower config.data.region_share' in str(e.value)


def crops_config():
  config = config_of(pairs='crops', crops=4, batch_size=16, crop_size=32)
  config.train.augment.update(rgb_shift=0.0, pixel_noise=0.0)
  return config


@pytest.mark.parametrize('name', ['stripe', 'islands', 'own'])
def test_both_patches_of_every_pair_of_points_count(name, monkeypatch):
  monkeypatch.setattr(places, 'CROPS', 64)
  config, regions = crops_config(), regions_of(name)
  table = places.make(config, regions)
  arch = architecture.from_config(config.encoder)
  sample = jit(crops.make_sampler(arch, config.train, COUNT, coded))
  keys = jax.random.split(jax.random.key(1), 60)
  views = jax.device_get(
    sample(keys, np.zeros((COUNT, *IMAGE_SIZE, 3), np.uint8), np.zeros((1, 1, 3)), table)
  )
  (one, images), (other, same) = decoded(views.first), decoded(views.second)
  np.testing.assert_array_equal(images, same)
  assert (abs(one - other) <= sampling.neighbour_reach(16)).all()
  for k, points in views.points.items():
    near, far = crops.offsets(k, 2)
    for crop, image in enumerate(images):
      region = regions[image]
      for first, second, position, anchor in zip(
        points.first[crop],
        points.second[crop],
        points.positions[crop],
        points.anchor[crop],
        strict=True,
      ):
        assert counts(region, one[crop] + 2 * first, k)
        assert counts(region, other[crop] + 2 * second, k)
        assert counts(region, one[crop] + 2 * anchor, k)
        assert counts(region, other[crop] + 2 * anchor, k)
        step = second - first
        assert (np.sign(step) == sampling.DIRECTIONS[position]).all()
        assert all(near <= abs(each) <= far for each in step if each)


def test_crops_without_pairs_are_refused():
  region = np.zeros((COUNT, *IMAGE_SIZE), bool)
  region[:, :6, :6] = True
  with pytest.raises(UserError, match=r'no crop of config.train.crop_size=32 pixels was found'):
    places.make(crops_config(), region)


def step_with(regions, devices, **train):
  """The state after a step, in a region."""
  config, mesh = config_of(scales=(8,), steps_per_call=1, **train), mesh_of(devices)
  step = train_step.make_train_step(config, COUNT, mesh)
  inputs = loop.place_inputs(config, IMAGES, MEAN, mesh, regions)
  state, _ = step(place(train_state.init_state(config), mesh), *inputs)
  return jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize('pairs', ['patches', 'crops'])
def test_a_step_is_that_of_one_device_however_it_is_divided(pairs):
  crop = {'crops': 4, 'batch_size': 8, 'crop_size': 32} if pairs == 'crops' else {'batch_size': 8}
  regions = regions_of('own')
  expected = step_with(regions, 1, pairs=pairs, **crop)
  for devices, options in (
    (2, {'images': 'sharded'}),
    (2, {'accumulate': 2}),
    (1, {'accumulate': 2}),
  ):
    found = step_with(regions, devices, pairs=pairs, **crop, **options)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


def test_a_program_without_a_region_takes_no_tables():
  config, mesh = config_of(scales=(8,)), mesh_of(1)
  _, _, run = loop.place_inputs(config, IMAGES, MEAN, mesh)
  assert run.places is None


@pytest.mark.slow
def test_members_of_a_population_draw_in_the_region():
  config = config_of(scales=(8,), steps=2, steps_per_call=2)
  fit = population.make_fit(config, IMAGES, MEAN, regions_of('ring'))

  class Notes:
    def start(self): ...
    def record(self, *_): ...
    def lost(self, *_): ...
    def save(self, *_): ...

  states = [train_state.init_state(config) for _ in range(2)]
  outcome = fit([config] * 2, states, monitor=Notes(), savers=[Notes()] * 2)
  mesh = mesh_of(jax.device_count())
  alone, _ = train_step.make_train_step(config, COUNT, mesh)(
    place(train_state.init_state(config), mesh),
    *loop.place_inputs(config, IMAGES, MEAN, mesh, regions_of('ring')),
  )
  for state in outcome.states:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      state.params,
      jax.device_get(alone.params),
    )
