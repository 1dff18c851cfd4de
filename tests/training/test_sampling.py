"""Pairs of patches: where they lie, what is cut out, and what is added to it."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from patch_svdd_jax.system.batching import pad_images
from patch_svdd_jax.system.sharding import REPLICATED, SHARDED, place
from patch_svdd_jax.training import sampling, windows
from tests.support.draws import (
  NEIGHBOURS,
  check_normal,
  check_share,
  check_uniform,
  check_unrelated,
)
from tests.support.runs import mesh_of
from tests.training.test_windows import augmentation, jit

DRAWS = 40_000
MODES = ('clip', 'valid')


def keys(seed, count=600):
  return jax.random.split(jax.random.key(seed), count)


@functools.cache
def uniform_numbers():
  """f32[DRAWS, 5]: what that many pairs are drawn from."""
  return np.random.default_rng(0).random((DRAWS, sampling.FOR_POSITION), np.float32)


@functools.cache
def neighbours(image_size, patch):
  """Many neighbour pairs as two arrays i32[DRAWS, 2]."""
  pair = jit(jax.vmap(lambda uniform: sampling.neighbour_pair(uniform, image_size, patch)))
  uniform = uniform_numbers()[:, : sampling.FOR_NEIGHBOUR]
  return tuple(np.asarray(corner) for corner in pair(uniform))


@functools.cache
def positions(image_size, patch, mode):
  """Many position pairs: two corners i32[DRAWS, 2] and i32[DRAWS]."""
  pair = jit(jax.vmap(lambda uniform: sampling.position_pair(uniform, image_size, patch, mode)))
  return tuple(np.asarray(part) for part in pair(uniform_numbers()))


def check_inside(corners, image_size, patch):
  assert (corners >= 0).all()
  assert (corners + patch <= image_size).all()


@pytest.mark.parametrize(
  ('image_size', 'patch', 'reach'), [((256, 256), 32, 1), ((200, 131), 64, 2), ((140, 150), 128, 4)]
)
def test_neighbours_are_shifted_uniformly(image_size, patch, reach):
  first, second = neighbours(image_size, patch)
  check_inside(first, image_size, patch)
  check_inside(second, image_size, patch)
  for axis in range(2):
    check_uniform(first[:, axis], image_size[axis] - patch + 1)
  # Nothing is clipped where the first patch is far enough from every border.
  last = np.array(image_size) - patch
  free = ((first >= reach) & (first <= last - reach)).all(axis=1)
  shift = (second - first)[free]
  assert shift.any(axis=1).all()
  side = 2 * reach + 1
  number = (shift[:, 0] + reach) * side + shift[:, 1] + reach
  number -= number > side * side // 2  # the middle one, (0, 0), does not occur
  check_uniform(number, side * side - 1)


@pytest.mark.parametrize(('patch', 'share'), [(64, 0.0017), (32, 0.0022)])
def test_few_neighbours_are_clipped_onto_each_other(patch, share):
  # Every first corner along an axis and every shift, in turn.
  reach, last = patch // 32, 256 - patch
  shifts = range(-reach, reach + 1)
  stays = {
    shift: np.mean([min(max(x + shift, 0), last) == x for x in range(last + 1)]) for shift in shifts
  }
  pairs = [(a, b) for a in shifts for b in shifts if (a, b) != (0, 0)]
  expected = np.mean([stays[a] * stays[b] for a, b in pairs])
  assert expected == pytest.approx(share, abs=1e-4)
  first, second = neighbours((256, 256), patch)
  check_share((first == second).all(axis=1), expected)


@pytest.mark.parametrize('patch', [64, 32])
def test_positions_lie_at_their_offset(patch):
  image_size = (256, 256)
  first, second, position = positions(image_size, patch, 'valid')
  check_inside(first, image_size, patch)
  check_inside(second, image_size, patch)
  check_uniform(position, 8)
  offset, direction = second - first, NEIGHBOURS[position]
  np.testing.assert_array_equal(np.sign(offset), direction)
  for axis in range(2):
    distance = np.abs(offset[direction[:, axis] != 0, axis])
    assert distance.min() == 3 * patch // 4
    assert distance.max() == patch - 1
    check_uniform(distance - 3 * patch // 4, patch // 4)


@pytest.mark.parametrize('image_size', [(127, 150), (300, 128)])
def test_valid_pairs_are_never_moved(image_size):
  first, second, position = positions(image_size, 64, 'valid')
  check_inside(first, image_size, 64)
  check_inside(second, image_size, 64)
  offset = second - first
  np.testing.assert_array_equal(np.sign(offset), NEIGHBOURS[position])
  assert set(np.abs(offset).ravel()) == {0, *range(48, 64)}
  # Each first corner that has such a neighbour is drawn: upwards by exactly 48, from row 48 on.
  up = first[offset[:, 0] == -48, 0]
  check_uniform(up - 48, image_size[0] - 64 - 48 + 1)


@pytest.mark.parametrize(('patch', 'share'), [(64, 0.390), (32, 0.175)])
def test_clip_moves_the_authors_share_of_pairs(patch, share):
  # An offset of d pixels along an axis leaves `last - d + 1` of the `last + 1` first corners.
  last = 256 - patch
  stays = np.mean([(last - d + 1) / (last + 1) for d in range(3 * patch // 4, patch)])
  expected = 1 - np.mean([stays ** np.abs(direction).sum() for direction in NEIGHBOURS])
  assert expected == pytest.approx(share, abs=1e-3)
  # The same numbers are the same position and offset in both modes.
  first, second, position = positions((256, 256), patch, 'clip')
  valid_first, valid_second, valid_position = positions((256, 256), patch, 'valid')
  np.testing.assert_array_equal(position, valid_position)
  wanted = first + valid_second - valid_first
  check_share((second != wanted).any(axis=1), expected)
  np.testing.assert_array_equal(second, np.clip(wanted, 0, last))
  for axis in range(2):
    check_uniform(first[:, axis], last + 1)


def test_clip_stays_inside_images_hardly_larger_than_a_patch():
  image_size = (65, 90)
  first, second, position = positions(image_size, 64, 'clip')
  check_inside(first, image_size, 64)
  check_inside(second, image_size, 64)
  check_uniform(position, 8)


def test_whole_numbers_are_chosen_evenly_and_within_their_bounds():
  largest = np.nextafter(np.float32(1), np.float32(0))
  for low, high in ((0, 0), (-3, 3), (48, 63), (0, 192), (0, 1_000_003)):
    found = np.asarray(sampling.choose(np.array([0, largest], np.float32), low, high))
    assert found.tolist() == [low, high]
    assert found.dtype == np.int32
  every = np.arange(70, dtype=np.float32) / 70 + np.float32(1e-3)
  np.testing.assert_array_equal(np.bincount(sampling.choose(every, 0, 6)), 10)


# What the sampler cuts out. Each pixel of these images says where it is: row, column, image.

PATCH, COUNT = 16, 5
IMAGE_SIZE = (61, 90)


def coded_images():
  codes = np.indices((COUNT, *IMAGE_SIZE))
  return np.stack([codes[1], codes[2], codes[0]], axis=-1).astype(np.uint8)


@functools.cache
def sampler(mode):
  return jit(sampling.make_sampler(PATCH, mode, augmentation(), COUNT))


def no_mean():
  return np.zeros((*IMAGE_SIZE, 3), np.float32)


def read_codes(patches):
  """Corners and image numbers of patches from which nothing was subtracted."""
  codes = np.rint(255 * np.asarray(patches[:, 0, 0])).astype(int)
  return codes[:, :2], codes[:, 2]


def cut(images, mean, corners, numbers):
  """The normalised patches, in float64."""
  mean = mean.astype(np.float64)
  squares = [np.s_[row : row + PATCH, column : column + PATCH] for row, column in corners]
  return np.stack(
    [(images[n][at] - mean[at]) / 255 for n, at in zip(numbers, squares, strict=True)]
  )


@pytest.mark.parametrize('mode', MODES)
def test_cut_patches_are_slices_of_the_images(mode):
  images = coded_images()
  pairs = sampler(mode)(keys(1), images, no_mean())
  found = {}
  for name, patches in pairs._asdict().items():
    if name == 'positions':
      continue
    assert patches.shape == (600, PATCH, PATCH, 3)
    found[name] = corners, numbers = read_codes(patches)
    check_inside(corners, IMAGE_SIZE, PATCH)
    check_uniform(numbers, COUNT)
    np.testing.assert_allclose(patches, cut(images, no_mean(), corners, numbers), atol=1e-7)
  for kind in ('position', 'neighbour'):
    (first, number), (second, other) = found[f'{kind}_first'], found[f'{kind}_second']
    np.testing.assert_array_equal(number, other)
    # Patches of 16 pixels: neighbours one pixel away, positions 12 to 15.
    assert np.abs(second - first).max() == {'position': 15, 'neighbour': 1}[kind]
  offset = found['position_second'][0] - found['position_first'][0]
  positions = np.asarray(pairs.positions)
  check_uniform(positions, 8)
  if mode == 'valid':
    np.testing.assert_array_equal(np.sign(offset), NEIGHBOURS[positions])
  # The mean image is cut where the patch is; the draws do not depend on it.
  means = np.random.default_rng(0).uniform(0, 255, (*IMAGE_SIZE, 3)).astype(np.float32)
  normalised = sampler(mode)(keys(1), images, means)
  for name, (corners, numbers) in found.items():
    expected = cut(images, means, corners, numbers)
    np.testing.assert_allclose(getattr(normalised, name), expected, atol=1e-6)


def test_position_and_neighbour_pairs_are_drawn_apart():
  pairs = sampler('clip')(keys(2), coded_images(), no_mean())
  corners = [read_codes(patches)[0] for patches in (pairs.position_first, pairs.neighbour_first)]
  # Two uniform draws among 46 rows: as many in common as by chance.
  check_share(corners[0][:, 0] == corners[1][:, 0], 1 / 46)


def test_a_pair_depends_on_its_own_key_alone():
  images, mean = coded_images(), no_mean()
  pairs = sampler('clip')(keys(6), images, mean)
  moved = np.random.default_rng(0).permutation(600)
  for found, expected in zip(sampler('clip')(keys(6)[moved], images, mean), pairs, strict=True):
    np.testing.assert_array_equal(found, expected[moved])
  others = sampler('clip')(keys(7), images, mean)
  assert not any(np.array_equal(one, other) for one, other in zip(others, pairs, strict=True))


@pytest.mark.parametrize(
  ('images_lie', 'devices'), [('replicated', 2), ('replicated', 4), ('sharded', 2), ('sharded', 4)]
)
def test_devices_change_no_pair(images_lie, devices):
  spec, crop = windows.PLACEMENTS[images_lie]
  mesh, images = mesh_of(devices), coded_images()
  sample = jax.shard_map(
    sampling.make_sampler(PATCH, 'valid', augmentation(), COUNT, crop),
    mesh=mesh,
    in_specs=(SHARDED, spec, REPLICATED),
    out_specs=SHARDED,
    check_vma=False,
  )
  # Black images make up the last device's part: none is drawn.
  padded = pad_images(images, -(-COUNT // devices) * devices) if spec == SHARDED else images
  found = jit(sample)(keys(1), place(padded, mesh, spec), no_mean())
  expected = sampler('valid')(keys(1), images, no_mean())
  for name, values in expected._asdict().items():
    shards = getattr(found, name).addressable_shards
    assert {len(shard.data) for shard in shards} == {600 // devices}
    assert np.asarray(getattr(found, name)).tobytes() == np.asarray(values).tobytes(), name


# Augmentation, seen on images of one colour.

COLOUR = np.array([50, 100, 200], np.uint8)
MEAN = np.array([[[40, 30, 20]]], np.float32)
SHIFT, NOISE, BRIGHTNESS, GAIN = 0.03, 0.04, 0.1, 0.2


@functools.cache
def augmented(**deviations):
  """Pairs of patches of 8 pixels in [0, 1], the mean added again."""
  images = np.full((2, 24, 24, 3), COLOUR)
  sample = jit(sampling.make_sampler(8, 'clip', augmentation(**deviations), len(images)))
  pairs = sample(keys(4), images, MEAN)
  return {
    name: np.asarray(patches, np.float64) + MEAN / 255
    for name, patches in pairs._asdict().items()
    if name != 'positions'
  }


def test_positions_get_a_shift_a_channel_and_noise_a_pixel():
  pairs = augmented(rgb_shift=SHIFT, pixel_noise=NOISE)
  shifts, noises = [], []
  for kind in ('position_first', 'position_second'):
    change = pairs[kind] - COLOUR / 255
    shift = change.mean(axis=(1, 2), keepdims=True)
    # The noise leaves an eighth of itself in the mean over 8 x 8 pixels.
    check_normal(shift, math.hypot(SHIFT, NOISE / 8))
    noise = change - shift
    check_normal(noise, NOISE * math.sqrt(1 - 1 / 64))
    check_unrelated(noise[..., 0], noise[..., 1])
    check_unrelated(shift[..., 0], shift[..., 1])
    shifts.append(shift)
    noises.append(noise)
  check_unrelated(*shifts)
  check_unrelated(*noises)


def test_neighbours_have_neither_shift_nor_noise():
  pairs = augmented(rgb_shift=SHIFT, pixel_noise=NOISE)
  for kind in ('neighbour_first', 'neighbour_second'):
    expected = np.broadcast_to(COLOUR / 255, pairs[kind].shape)
    np.testing.assert_allclose(pairs[kind], expected, atol=1e-7)


def test_light_is_common_to_a_patch_and_falls_before_the_mean():
  pairs = augmented(brightness=BRIGHTNESS, gain=GAIN)
  gains, shifts = {}, {}
  for kind, patches in pairs.items():
    assert np.ptp(patches, axis=(1, 2)).max() < 1e-6
    red, green, blue = np.moveaxis(patches[:, 0, 0], -1, 0)
    gain = (blue - red) / (150 / 255)
    shifts[kind] = red - gain * 50 / 255
    np.testing.assert_allclose(green, gain * 100 / 255 + shifts[kind], atol=1e-6)
    gains[kind] = np.log(gain)
    check_normal(gains[kind], GAIN)
    check_normal(shifts[kind], BRIGHTNESS)
    check_unrelated(gains[kind], shifts[kind])
  for one, other in itertools.combinations(pairs, 2):
    check_unrelated(gains[one], gains[other])
    check_unrelated(shifts[one], shifts[other])
