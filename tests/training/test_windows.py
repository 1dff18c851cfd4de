"""Windows against slices of the images, and what light and noise add to them, in float64."""

import functools

import jax
import ml_collections
import numpy as np
import pytest

from patch_svdd_jax.system.batching import pad_images
from patch_svdd_jax.system.sharding import SHARDED, place
from patch_svdd_jax.training import augment, windows
from patch_svdd_jax.training.augment import add_noise, augment_and_normalise
from tests.support.runs import mesh_of

# LLVM's optimisations take far longer than what they make faster here.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

SIDE, IMAGE_SIZE = 7, (20, 31)
# Every device's share of the windows has some of any image, the first and the last corner too.
INDICES = np.array([4, 0, 2, 4, 1, 3, 0, 4], np.int32)
CORNERS = np.array([(0, 0), (13, 24), (5, 9), (13, 0), (0, 24), (7, 7), (1, 2), (13, 24)], np.int32)


def augmentation(**deviations):
  off = {'rgb_shift': 0.0, 'pixel_noise': 0.0, 'brightness': 0.0, 'gain': 0.0}
  return ml_collections.ConfigDict(off | deviations)


def random_images(count):
  rng = np.random.default_rng(count)
  return rng.integers(0, 256, (count, *IMAGE_SIZE, 3), dtype=np.uint8)


def squares(images):
  """The windows, by numpy."""
  return np.stack(
    [
      images[index, row : row + SIDE, column : column + SIDE]
      for index, (row, column) in zip(INDICES, CORNERS, strict=True)
    ]
  )


@pytest.mark.parametrize('count', [5, 8])
@pytest.mark.parametrize(
  ('name', 'devices'),
  [('replicated', 1), ('replicated', 4), ('sharded', 1), ('sharded', 2), ('sharded', 4)],
)
def test_windows_are_slices_wherever_the_images_lie(name, devices, count):
  mesh, images = mesh_of(devices), random_images(count)
  spec, crop = windows.PLACEMENTS[name]
  padded = pad_images(images, 8) if spec == SHARDED else images
  crop_shares = jax.shard_map(
    lambda *given: crop(*given, SIDE),
    mesh=mesh,
    in_specs=(spec, SHARDED, SHARDED),
    out_specs=SHARDED,
    check_vma=False,
  )
  found = jit(crop_shares)(
    place(padded, mesh, spec), *(place(given, mesh, SHARDED) for given in (INDICES, CORNERS))
  )
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, squares(images))


@functools.cache
def normalised(gain=0.0, brightness=0.0):
  augment = augmentation(gain=gain, brightness=brightness)
  return jit(lambda *given: augment_and_normalise(*given, augment))


def test_the_mean_image_is_cut_where_the_window_is():
  pixels = squares(random_images(5))
  mean = np.random.default_rng(0).uniform(0, 255, (*IMAGE_SIZE, 3)).astype(np.float32)
  of_windows = [mean[row : row + SIDE, column : column + SIDE] for row, column in CORNERS]
  expected = (pixels - np.stack(of_windows).astype(np.float64)) / 255
  np.testing.assert_allclose(normalised()(pixels, CORNERS, mean, None), expected, atol=1e-6)


def test_a_mean_of_channels_is_the_same_everywhere():
  pixels, mean = squares(random_images(5)), np.array([[[10, 20, 250]]], np.float32)
  expected = (pixels - mean.astype(np.float64)) / 255
  np.testing.assert_allclose(normalised()(pixels, CORNERS, mean, None), expected, atol=1e-6)


def test_light_falls_before_the_mean_is_taken_off():
  pixels, mean = squares(random_images(5)), np.array([[[10, 20, 250]]], np.float32)
  light = np.random.default_rng(0).normal(size=(len(pixels), 2)).astype(np.float32)
  gain, shift = light.astype(np.float64).T[:, :, None, None, None]
  expected = (pixels * np.exp(0.2 * gain) + 255 * 0.1 * shift - mean) / 255
  found = normalised(gain=0.2, brightness=0.1)(pixels, CORNERS, mean, light)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
  ('deviations', 'lit'),
  [({}, False), ({'rgb_shift': 1.0, 'pixel_noise': 1.0}, False)]
  + [({name: 0.1}, True) for name in ('brightness', 'gain')],
)
def test_which_windows_are_lit(deviations, lit):
  assert augment.is_lit(augmentation(**deviations)) == lit


def test_noise_is_a_shift_a_channel_and_a_number_a_pixel():
  rng = np.random.default_rng(0)
  window = rng.uniform(-0.5, 0.5, (SIDE, SIDE, 3)).astype(np.float32)
  shift, noise = (rng.normal(size=size).astype(np.float32) for size in (3, window.size))
  augment = augmentation(rgb_shift=0.03, pixel_noise=0.04)
  found = jit(lambda *given: add_noise(*given, augment))(window, shift, noise)
  expected = window.astype(np.float64) + 0.03 * shift + 0.04 * noise.reshape(window.shape)
  np.testing.assert_allclose(found, expected, atol=1e-6)
