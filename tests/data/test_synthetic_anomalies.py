"""Synthetic anomalies: what they change, what they leave, and that they can be seen."""

import numpy as np
import pytest
from scipy import ndimage

from patch_svdd_jax.data import synthetic_anomalies
from patch_svdd_jax.data.synthetic_anomalies import (
  KINDS,
  LEAST_DEVIATIONS,
  LEAST_LEVELS,
  draw_place,
  make,
  observe,
  surroundings,
)


def texture(seed, size, coloured=False):
  """A smooth random texture u8[H, W, 3]."""
  rng = np.random.default_rng(seed)
  noise = ndimage.gaussian_filter(rng.normal(size=(*size, 3)), (1.5, 1.5, 0))
  noise = noise if coloured else noise[..., :1]
  pixels = 120 + 40 * noise / noise.std()
  return np.broadcast_to(np.clip(pixels, 0, 255), (*size, 3)).astype(np.uint8)


def disc(size=(96, 96), centre=(30, 34), radius=18):
  """A structured object before a plain background, with the object's mask."""
  rows, columns = np.indices(size)
  inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
  grey = np.where(inside, texture(3, size)[..., 0], 200)
  return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8), inside


SIZES = [(32, 32), (33, 47), (96, 96), (32, 256), (200, 128)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('coloured', [False, True])
def test_changes_lie_in_the_mask_and_can_be_seen(size, coloured):
  images = np.array([texture(seed, size, coloured) for seed in range(6)])
  changed, masks, kinds = make(images, seed=0)
  assert (changed.dtype, masks.dtype) == (np.uint8, bool)
  assert changed.shape == (6 * len(KINDS), *size, 3)
  assert masks.shape == changed.shape[:3]
  assert kinds == list(KINDS) * 6
  for index, (image, mask) in enumerate(zip(changed, masks, strict=True)):
    normal = images[index // len(KINDS)]
    np.testing.assert_array_equal(image[~mask], normal[~mask])
    difference = np.abs(image[mask].astype(int) - normal[mask]).mean()
    assert difference >= max(LEAST_LEVELS, LEAST_DEVIATIONS * normal.std())
    # A soft edge adds to the area, as do pixels cut on a coarse grid.
    assert 0.001 < mask.mean() < (0.1 if min(size) >= 96 else 0.2)


def test_grey_images_stay_grey():
  changed, _, _ = make(texture(0, (96, 96))[None], seed=1)
  assert (changed == changed[..., :1]).all()


def test_a_stain_tints_images_with_colours():
  image = texture(0, (96, 96), coloured=True)
  image = np.clip(image, 80, 170)  # nothing is cut off
  for seed in range(5):
    changed, masks, _ = make(image[None], seed=seed, kinds=['stain'])
    shift = (changed[0].astype(int) - image)[masks[0]].mean(axis=0)
    assert np.ptp(shift) > 1
    assert (shift > 0).all() or (shift < 0).all()


def test_anomalies_are_functions_of_seed_and_number_of_the_image():
  images = np.array([texture(seed, (64, 80)) for seed in range(3)])
  changed, masks, kinds = make(images, seed=4)
  again = make(images, seed=4)
  np.testing.assert_array_equal(changed, again[0])
  np.testing.assert_array_equal(masks, again[1])
  assert kinds == again[2]
  assert (make(images, seed=5)[0] != changed).any(axis=(1, 2, 3)).all()
  # Of fewer images and of fewer kinds they are the same.
  alone, _, _ = make(images[:2], seed=4, kinds=['stain', 'blur'])
  chosen = [index for image in range(2) for index in (5 * image + 4, 5 * image + 1)]
  np.testing.assert_array_equal(alone, changed[chosen])


@pytest.mark.parametrize('level', [0, 128, 255])
def test_images_of_one_colour_get_what_can_be_seen(level):
  image = np.full((1, 48, 48, 3), level, np.uint8)
  changed, masks, kinds = make(image, seed=0)
  assert not {'blur', 'smear'} & set(kinds)
  assert 'stain' in kinds
  for each, mask in zip(changed, masks, strict=True):
    np.testing.assert_array_equal(each[~mask], level)
    assert np.abs(each[mask].astype(int) - level).mean() >= LEAST_LEVELS


def test_no_image_and_no_visible_anomaly_give_empty_arrays():
  for images in (np.zeros((0, 40, 50, 3), np.uint8), np.full((2, 40, 50, 3), 9, np.uint8)):
    changed, masks, kinds = make(images, seed=0, kinds=['blur'])
    assert changed.shape == (0, 40, 50, 3)
    assert masks.shape == (0, 40, 50)
    assert (changed.dtype, masks.dtype, kinds) == (np.uint8, bool, [])


def test_places_are_drawn_where_there_is_contrast():
  image, inside = disc()
  rng = np.random.default_rng(0)
  scene = observe(image)
  places = [draw_place(rng, scene, 0) for _ in range(2000)]
  near = ndimage.binary_dilation(inside, iterations=6)
  share = np.mean([near[int(row), int(column)] for row, column in places])
  assert near.mean() < 0.25
  assert 0.7 < share < 0.95


def test_places_keep_off_the_edges():
  scene = observe(texture(0, (40, 64)))
  rng = np.random.default_rng(0)
  rows, columns = np.array([draw_place(rng, scene, 25) for _ in range(200)]).T
  assert (rows == 19.5).all()  # there is no room: the middle
  assert columns.min() >= 25
  assert columns.max() <= 38


@pytest.mark.parametrize('part', [(0, 40, 0, 64), (3, 9, 50, 64), (10, 20, 10, 20)])
def test_surroundings_are_mirrored_at_the_edges(part):
  image = texture(1, (40, 64))
  top, bottom, left, right = part
  whole = np.pad(image, [(7, 7), (7, 7), (0, 0)], mode='symmetric')
  taken = surroundings(observe(image), (slice(top, bottom), slice(left, right)), 7)
  np.testing.assert_array_equal(taken, whole[top : bottom + 14, left : right + 14])


def test_blur_and_smear_take_contrast_away_and_keep_the_mean():
  images = np.array([texture(seed, (96, 96)) for seed in range(8)])
  changed, masks, _ = make(images, seed=0, kinds=['blur', 'smear'])
  for index, (image, mask) in enumerate(zip(changed, masks, strict=True)):
    inner = ndimage.binary_erosion(mask, iterations=2)
    if inner.sum() < 60:
      continue
    normal = images[index // 2][inner].astype(float)
    assert image[inner].std() < normal.std()
    assert abs(image[inner].mean() - normal.mean()) < normal.std()


def test_large_shifts_are_cut_off_at_black_and_white(monkeypatch):
  monkeypatch.setattr(synthetic_anomalies, 'draw_shift', lambda rng, scene: 300.0)
  image = texture(0, (64, 64))
  changed, masks, _ = make(image[None], seed=0, kinds=['stain'])
  inner = changed[0][ndimage.binary_erosion(masks[0], iterations=1)]
  assert inner.min() == 0 or inner.max() == 255
